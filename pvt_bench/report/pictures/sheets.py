"""Sheets of predictions that the runs of a table have drawn."""

import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pvt_bench.report.pictures.charts import main_score
from pvt_bench.report.sources.loaded import Source
from pvt_bench.report.tables.rows import Origin, Row, Table

FILE = "pictures/predictions.png"
# Runs that are looked at: in a store each costs a query.
RUNS = 60


@dataclass(frozen=True)
class Sheet:
    """Picture of a run's predictions. label: the run's row; path: where the picture is."""

    label: str
    origin: Origin
    path: Path


def find_sheets(table: Table, source: Source) -> tuple[Sheet, ...]:
    """Sheets of the runs of a table's best rows, the best first."""
    runs = (
        (row, origin)
        for row in _best_first(table)
        for origin in row.origins
        if origin.kind == "score"
    )
    found = ((*each, source.file(each[1].run, FILE)) for each in islice(runs, RUNS))
    return tuple(Sheet(row.label, origin, path) for row, origin, path in found if path)


def _best_first(table: Table) -> list[Row]:
    score = main_score(table)
    if score is None:
        return [*table.rows]

    def place(row: Row) -> float:
        mean = row.values[score].mean
        return math.inf if math.isnan(mean) else -mean

    return sorted(table.rows, key=place)
