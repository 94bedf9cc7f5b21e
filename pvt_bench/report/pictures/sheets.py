"""Sheets of predictions that the runs of a table have drawn."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pvt_bench.report.pictures.charts import main_score
from pvt_bench.report.sources.loaded import Source
from pvt_bench.report.tables.rows import Origin, Row, Table

FILE = "pictures/predictions.png"
# More are not looked at one by one.
SHEETS = 60


@dataclass(frozen=True)
class Sheet:
    """Picture of a run's predictions. label: the run's row; path: where the picture is."""

    label: str
    origin: Origin
    path: Path


def find_sheets(table: Table, source: Source) -> tuple[Sheet, ...]:
    """Sheets of a table's runs, those of the best rows first."""
    return tuple(islice(_sheets(table, source), SHEETS))


def _sheets(table: Table, source: Source) -> Iterator[Sheet]:
    for row in _best_first(table):
        for origin in row.origins:
            path = source.file(origin.run, FILE) if origin.kind == "score" else None
            if path is not None:
                yield Sheet(row.label, origin, path)


def _best_first(table: Table) -> list[Row]:
    score = main_score(table)
    if score is None:
        return [*table.rows]

    def place(row: Row) -> float:
        mean = row.values[score].mean
        return math.inf if math.isnan(mean) else -mean

    return sorted(table.rows, key=place)
