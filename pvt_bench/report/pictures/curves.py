"""Curves of the loss: the best rows in colours of their own, the others in grey behind them."""

from collections.abc import Hashable, Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from pvt_bench.report.pictures.charts import Chart, Point, Series
from pvt_bench.report.sources.loaded import FINISHED, Source
from pvt_bench.report.tables.rows import Row, Table

LOSS, IMAGES = "train/loss", "train/images_seen"
# Rows that colours, dashes and marks tell apart, and those behind them.
COLOURED, GREY = 8, 25
OTHERS = "others"
# Of a curve on the page.
POINTS = 400
# From the highest to the lowest loss; on a linear axis, such curves would lie on the ground.
STEEP = 5


class Curve(NamedTuple):
    """Loss of a run over the images seen. window: points of its running mean."""

    row: Row
    points: tuple[Point, ...]
    window: int


def loss_curves(
    table: Table, rows: Sequence[Row], source: Source, prefix: str = ""
) -> Iterator[Chart]:
    """Loss of the runs of a table's rows, the best first. The runs of a row look alike."""
    front = _read(rows[:COLOURED], source)
    behind = _read(rows[COLOURED : COLOURED + GREY], source)
    if not front:
        return
    series = (*_others(behind), *_by_end(front))
    losses = [point.y for each in series for point in each.points]
    yield Chart(
        f"{prefix}loss",
        f"{table.title}: loss of the training",
        "lines",
        "Images seen",
        "Loss",
        series,
        note=_note([*front, *behind], len(rows)),
        log=min(losses) > 0 and max(losses) > STEEP * min(losses),
    )


def _read(rows: Sequence[Row], source: Source) -> list[Curve]:
    curves = [
        Curve(row, *_curve(source, origin.run))
        for row in rows
        for origin in row.origins
        if origin.kind == "score" and origin.state == FINISHED
    ]
    return [curve for curve in curves if len(curve.points) > 1]


def _curve(source: Source, run: Hashable) -> tuple[tuple[Point, ...], int]:
    """Loss over the images seen, smoothed if there are many points."""
    history = source.history(run, [LOSS, IMAGES])
    if not {LOSS, IMAGES} <= {*history.columns}:
        return (), 1
    history = history.dropna().sort_index()
    window = max(1, len(history) // 20)
    loss = history[LOSS].rolling(window, min_periods=1).mean()
    chosen = loss.index[:: max(1, len(loss) // POINTS)]
    return tuple(Point(history.at[s, IMAGES], float(loss[s])) for s in chosen), window


def _by_end(curves: Sequence[Curve]) -> list[Series]:
    """Series in the order in which the curves of their rows end, the highest first."""
    ends: dict[str, list[float]] = {}
    for curve in curves:
        ends.setdefault(curve.row.label, []).append(curve.points[-1].y)
    ordered = sorted(curves, key=lambda curve: -fmean(ends[curve.row.label]))
    return [Series(curve.row.label, curve.points, line=True) for curve in ordered]


def _others(curves: Sequence[Curve]) -> Iterator[Series]:
    for curve in curves:
        points = tuple(Point(point.x, point.y, curve.row.label) for point in curve.points)
        yield Series(OTHERS, points, line=True, quiet=True)


def _note(curves: Sequence[Curve], rows: int) -> str:
    smoothed = max(curve.window for curve in curves)
    notes = [f"Running means of up to {smoothed} points."] if smoothed > 1 else []
    if rows > COLOURED:
        notes.append(f"The best {COLOURED} rows are in colours.")
    if rows > COLOURED + GREY:
        notes.append(f"The best {COLOURED + GREY} rows of {rows} are drawn.")
    return " ".join(notes)
