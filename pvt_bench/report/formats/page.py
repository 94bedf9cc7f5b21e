"""The report as one HTML file that opens from disk and needs no network."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment
from markupsafe import Markup

from pvt_bench.escaping import visible
from pvt_bench.report.formats.files import link
from pvt_bench.report.pictures.charts import Chart, Point
from pvt_bench.report.pictures.sheets import Sheet
from pvt_bench.report.tables.rows import Cell, Origin, Row, Table

PARTS = files("pvt_bench.report.formats")
SCRIPTS = ("tables.js", "labels.js", "pictures.js")
# Sheets of predictions that are seen at once; the others unfold.
SHEETS = 6


class Part(NamedTuple):
    """A table with the pictures below it."""

    table: Table
    charts: Sequence[Chart]
    sheets: Sequence[Sheet]


def to_html(parts: Sequence[Part], command: str, place: str, directory: Path) -> str:
    """Build the page: tables to sort and filter, pictures to hover over, with their numbers.

    place: where the runs were read; directory: where the page will lie, from which links go.
    """
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_visible
    )
    environment.filters["run_name"] = _run_name
    template = environment.from_string(_part("page.html.jinja"))
    return template.render(
        tables=_parts(parts, directory),
        data=[_chart(chart, directory) for part in parts for chart in part.charts],
        command=command,
        place=place,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        # Ours, and so not escaped.
        style=Markup(_part("page.css")),
        script=Markup("\n".join(map(_part, SCRIPTS))),
    )


def _visible(value: Any) -> Any:
    # Markup is a kind of str, and ours.
    return visible(value) if type(value) is str else value


def _part(name: str) -> str:
    return PARTS.joinpath(name).read_text()


def _parts(parts: Sequence[Part], directory: Path) -> list[dict[str, Any]]:
    number = count()
    return [
        _table(part.table, directory)
        | {
            "charts": [(next(number), chart) for chart in part.charts],
            "sheets": [_sheet(sheet, directory) for sheet in part.sheets[:SHEETS]],
            "more_sheets": [_sheet(sheet, directory) for sheet in part.sheets[SHEETS:]],
        }
        for part in parts
    ]


def _sheet(sheet: Sheet, directory: Path) -> dict[str, Any]:
    return {
        "label": sheet.label,
        "origin": sheet.origin,
        "run": link(sheet.origin.link, directory),
        "picture": link(str(sheet.path), directory),
    }


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
        "runs": [(row.label, origin) for row in table.rows for origin in row.origins],
        "rows": len(table.rows),
    }


def _row(table: Table, row: Row, directory: Path) -> dict[str, Any]:
    return {
        "label": row.label,
        "cells": [(cell, _key(cell)) for cell in table.cells(row)],
        "origins": [(origin, link(origin.link, directory)) for origin in row.origins],
    }


def _run_name(origin: Origin, beside: Sequence[tuple[Origin, str]]) -> str:
    """Short name of a run among those of its row."""
    if len(beside) == 1:
        return origin.identity[:10]
    return f"seed {origin.seed}" if origin.seed else origin.kind


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
                "quiet": series.quiet,
                "points": [_point(point, directory) for point in series.points],
            }
            for series in chart.series
        ],
    }


def _point(point: Point, directory: Path) -> list[Any]:
    deviation = None if math.isnan(point.deviation) else point.deviation
    return [point.x, point.y, point.label, deviation, link(point.link, directory), point.more]
