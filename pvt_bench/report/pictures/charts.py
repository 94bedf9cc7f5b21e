"""Content of a report's pictures, before they are drawn."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pvt_bench.escaping import one_line
from pvt_bench.report.tables.published import SCORES, as_number
from pvt_bench.report.tables.rows import Row, Table

AGAINST = ("gflops", "params_m", "latency_ms")
# More bars than this are a table.
BARS = 30


@dataclass(frozen=True)
class Point:
    """One mark. deviation: of y, or NaN; link: to a run; more: words beside it."""

    x: float
    y: float
    label: str = ""
    deviation: float = math.nan
    link: str = ""
    more: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one kind. line: whether they are joined in order; quiet: only a background."""

    name: str
    points: tuple[Point, ...]
    published: bool = False
    line: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Chart:
    """One picture.

    name: of its files, after that of the report; kind: points, lines, or bars (y counts the bars,
    whose names are the labels); front: the best that can be had, from left to right.
    """

    name: str
    title: str
    kind: str
    x: str
    y: str
    series: tuple[Series, ...]
    front: tuple[Point, ...] = ()
    note: str = ""
    log: bool = False

    def visible(self) -> "Chart":
        """Copy whose texts show control characters by their codes."""
        return replace(
            self,
            title=one_line(self.title),
            x=one_line(self.x),
            y=one_line(self.y),
            series=tuple(map(_visible, self.series)),
            note=one_line(self.note),
        )

    def frame(self) -> pd.DataFrame:
        """Numbers behind the picture."""
        rows = [
            {
                "series": series.name,
                "label": point.label,
                self.x: point.x,
                self.y: point.y,
                "deviation": point.deviation,
            }
            for series in self.series
            for point in series.points
        ]
        return pd.DataFrame(rows).dropna(axis="columns", how="all")


def table_charts(table: Table, prefix: str = "") -> Iterator[Chart]:
    """Charts of a table's own numbers: score over cost, and seeds."""
    score = main_score(table)
    if score is None:
        return
    for name in AGAINST:
        if name in table.figures:
            yield from _score_over(table, score, name, prefix)
    if table.several:
        yield from _seeds(table, score, prefix)


def main_score(table: Table) -> str | None:
    """Name of the table's first score, in the order of the papers."""
    measured = [
        name
        for name in SCORES
        if name in table.figures
        and any(row.values[name].n or row.published.get(name) for row in table.rows)
    ]
    return measured[0] if measured else None


def pareto(points: Sequence[Point]) -> tuple[Point, ...]:
    """Pareto front, from left to right: points that none with less or equal x beats."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return tuple(front)


def _score_over(table: Table, score: str, cost: str, prefix: str) -> Iterator[Chart]:
    y, x = table.figures[score], table.figures[cost]
    measured = [
        (row, Point(row.values[cost].mean, value.mean, row.label, value.deviation, _link(row)))
        for row in table.rows
        if not math.isnan((value := row.values[score]).mean + row.values[cost].mean)
    ]
    published, note = _published(table, score, cost)
    if len(measured) + len(published) < 2:
        return
    points = tuple(point for _, point in measured)
    series = [Series("measured", points)] if points else []
    series += [Series("published", published, published=True)] if published else []
    yield Chart(
        f"{prefix}{score}-{cost}",
        f"{table.title}: {y.heading} over {x.heading}",
        "points",
        x.heading,
        y.heading,
        tuple(series),
        pareto(points or published),
        note,
    )
    studies = tuple(_studies(table, measured))
    if studies and cost == "gflops":
        keys = ", ".join([*table.texts.values()][1:])
        yield Chart(
            f"{prefix}{score}-tradeoff",
            f"{table.title}: what {keys} trades",
            "points",
            x.heading,
            y.heading,
            studies,
        )


def _published(table: Table, score: str, cost: str) -> tuple[tuple[Point, ...], str]:
    """Published scores over published costs, or over ours if none is printed."""
    points, borrowed = [], False
    for row in table.rows:
        x, y = (as_number(row.published.get(name, "")) for name in (cost, score))
        borrowed |= math.isnan(x) and not math.isnan(y + row.values[cost].mean)
        x = row.values[cost].mean if math.isnan(x) else x
        if not math.isnan(x + y):
            points.append(Point(x, y, row.label))
    heading = table.figures[cost].heading
    note = f"Where no {heading} are published, ours are taken." if borrowed else ""
    return tuple(dict.fromkeys(points)), note


def _studies(table: Table, measured: Sequence[tuple[Row, Point]]) -> Iterator[Series]:
    """A line for each model that has several rows with different settings."""
    if list(table.texts)[:1] != ["model.name"]:
        return
    by_model: dict[str, list[Point]] = {}
    for row, point in measured:
        label = " ".join(text for text in row.texts[1:] if text)
        own = Point(point.x, point.y, label, point.deviation, point.link)
        by_model.setdefault(row.texts[0], []).append(own)
    for model, points in by_model.items():
        # What changes no cost trades nothing.
        if len({point.x for point in points}) > 1:
            yield Series(model, tuple(sorted(points, key=lambda p: p.x)), line=True)


def _seeds(table: Table, score: str, prefix: str) -> Iterator[Chart]:
    figure = table.figures[score]
    rows = [row for row in table.rows if row.values[score].n]
    rows.sort(key=lambda row: row.values[score].mean)
    rows = rows[-BARS:]
    measured = tuple(
        Point(value.mean, place, row.label, value.deviation, _link(row), f"n = {value.n}")
        for place, row in enumerate(rows)
        for value in [row.values[score]]
    )
    published = tuple(
        Point(as_number(row.published[score]), place, row.label)
        for place, row in enumerate(rows)
        if row.published.get(score)
    )
    series = [Series("measured", measured)]
    series += [Series("published", published, published=True)] if published else []
    if len(measured) > 1:
        yield Chart(
            f"{prefix}{score}-seeds",
            f"{table.title}: {figure.heading}, mean and sample deviation over the seeds",
            "bars",
            figure.heading,
            "",
            tuple(series),
        )


def _link(row: Row) -> str:
    return next((origin.link for origin in row.origins if origin.kind == "score"), "")


def _visible(series: Series) -> Series:
    return replace(series, name=one_line(series.name), points=_points(series.points))


def _points(points: Iterable[Point]) -> tuple[Point, ...]:
    return tuple(
        replace(point, label=one_line(point.label), more=one_line(point.more)) for point in points
    )
