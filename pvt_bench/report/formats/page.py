"""The report as one HTML file that opens from disk and needs no network."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from pvt_bench.escaping import visible
from pvt_bench.report.formats.files import link
from pvt_bench.report.pictures.charts import Chart, Point
from pvt_bench.report.tables.rows import Cell, Row, Table

PARTS = files("pvt_bench.report.formats")


def to_html(
    tables: Sequence[Table], charts: Sequence[Chart], command: str, place: str, directory: Path
) -> str:
    """Build the page: tables to sort and filter, pictures to hover over, with their numbers.

    place: where the runs were read; directory: where the page will lie, from which links go.
    """
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_visible
    )
    template = environment.from_string(_part("page.html.jinja"))
    return template.render(
        tables=[_table(table, directory) for table in tables],
        charts=charts,
        data=[_chart(chart, directory) for chart in charts],
        command=command,
        place=place,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        # Ours, and so not escaped.
        style=Markup(_part("page.css")),
        script=Markup(_part("page.js")),
    )


def _visible(value: Any) -> Any:
    # Markup is a kind of str, and ours.
    return visible(value) if type(value) is str else value


def _part(name: str) -> str:
    return PARTS.joinpath(name).read_text()


def _table(table: Table, directory: Path) -> dict[str, Any]:
    traced = any(row.origins for row in table.rows)
    return {
        "title": table.title,
        "columns": table.columns,
        "texts": table.words,
        "traced": traced,
        "sections": [
            (section, [_row(table, row, directory) for row in rows])
            for section, rows in table.sections
        ],
        "notes": table.notes,
        "remarks": table.remarks,
        "rows": len(table.rows),
    }


def _row(table: Table, row: Row, directory: Path) -> dict[str, Any]:
    return {
        "label": row.label,
        "cells": [(cell, _key(cell)) for cell in table.cells(row)],
        "origins": [(origin, link(origin.link, directory)) for origin in row.origins],
    }


def _key(cell: Cell) -> str:
    """Sorting key of a cell; empty to sort by its text."""
    return "" if math.isnan(cell.value) else repr(float(cell.value))


def _chart(chart: Chart, directory: Path) -> dict[str, Any]:
    return {
        "kind": chart.kind,
        "x": chart.x,
        "y": chart.y,
        "log": chart.log,
        "front": [(point.x, point.y) for point in chart.front],
        "series": [
            {
                "name": series.name,
                "published": series.published,
                "line": series.line,
                "points": [_point(point, directory) for point in series.points],
            }
            for series in chart.series
        ],
    }


def _point(point: Point, directory: Path) -> list[Any]:
    deviation = None if math.isnan(point.deviation) else point.deviation
    return [point.x, point.y, point.label, deviation, link(point.link, directory), point.more]
