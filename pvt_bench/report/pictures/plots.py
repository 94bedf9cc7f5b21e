"""Pictures for print: as wide as a column, readable without colours."""

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogFormatter, MaxNLocator

from pvt_bench.colours import BLACK, BLUE, BROWN, GREEN, ORANGE, PURPLE, SKY, VERMILION
from pvt_bench.report.pictures.charts import Chart, Point, Series
from pvt_bench.report.pictures.labels import is_far, place_labels

# Inches: a column of a paper in two columns. Points: what can be read in one.
WIDTH, TEXT = 3.5, 8.0
DPI = 300
# Tried in turn until all labels have room.
HEIGHTS = (2.2, 3.0, 4.0, 5.2)
# Of a line of a title or a legend.
TEXT_LINE = 0.17
FRONT = "Pareto front"
# Where more labels than this stand far from their points, the picture becomes higher.
FAR_SHARE = 0.2
# Characters of a title's line; labels in a picture; points that all get a mark, and marks else.
LINE, LABELS, FEW, MARKED = 56, 30, 30, 8
# Without the light ones; marks and dashes say the same without colour.
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, BROWN)
MARKS = ("o", "s", "^", "v", "P", "X", "*", "h")
DASHES = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    (0, (6, 1, 1, 1, 1, 1)),
)
STYLE: Any = {
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "legend.fontsize": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.markersize": 4,
    "lines.linewidth": 1.2,
    # A dollar sign begins no formula.
    "text.parse_math": False,
    # The same picture is the same file.
    "svg.hashsalt": "pvt-bench",
}
# No date, for the same reason.
METADATA = {"png": {"Software": None}, "svg": {"Date": None}}


class PlainLogFormatter(LogFormatter):
    """Numbers below one as 0.3 instead of 3e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Format a value, or return an empty text where there is no room."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def render(chart: Chart, formats: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Render a chart in each of the formats `png` and `svg` that are asked for."""
    with rc_context(STYLE):
        figure = draw(chart)
        for kind in formats:
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=DPI, metadata=METADATA[kind])
            yield kind, content.getvalue()


def draw(chart: Chart) -> Figure:
    """Draw a chart."""
    return {"bars": _draw_bars, "lines": _draw_lines, "points": _draw_points}[chart.kind](chart)


def _draw_points(chart: Chart) -> Figure:
    """Marks with labels: taller if those need room, numbered if no height is enough."""
    points = _to_label(chart)
    best: tuple[int, Figure] | None = None
    for height in HEIGHTS:
        figure, axes = _scatter(chart, height)
        labels = place_labels(axes, points, TEXT, *_obstacles(chart))
        if labels is None:
            continue
        far = sum(is_far(label) for label in labels)
        if best is None or far < best[0]:
            best = (far, figure)
        if far <= FAR_SHARE * len(labels):
            break
    return best[1] if best else _numbered(chart, points)


def _numbered(chart: Chart, points: Sequence[Point]) -> Figure:
    """Marks with numbers, which are explained below the picture."""
    numbers = [replace(point, label=str(n)) for n, point in enumerate(points, start=1)]
    key = [f"{n} {point.label}" for n, point in enumerate(points, start=1)]
    figure, axes = _scatter(chart, HEIGHTS[-1], key)
    place_labels(axes, numbers, TEXT, *_obstacles(chart))
    return figure


def _scatter(chart: Chart, height: float, key: Sequence[str] = ()) -> tuple[Figure, Axes]:
    figure, axes = _start(chart, height, key)
    if chart.front:
        xs, ys = zip(*((point.x, point.y) for point in chart.front), strict=True)
        axes.step(xs, ys, where="post", color="0.6", lw=0.8, zorder=1, label=FRONT)
    for number, series in enumerate(chart.series):
        _plot(axes, series, number)
    _legend(figure, axes, chart, key)
    axes.margins(0.08)
    # The labels are placed where things will be: the layout is made, and stays.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure, axes


def _obstacles(chart: Chart) -> tuple[list[Point], list[tuple[Point, ...]], tuple[Point, ...]]:
    """Marks, lines through them, and the Pareto front."""
    marks = [point for series in chart.series for point in series.points]
    return marks, [series.points for series in chart.series if series.line], chart.front


def _draw_lines(chart: Chart) -> Figure:
    figure, axes = _start(chart, HEIGHTS[0])
    names = list(dict.fromkeys(series.name for series in chart.series if not series.quiet))
    for series in chart.series:
        if series.quiet:
            xs, ys = zip(*((point.x, point.y) for point in series.points), strict=True)
            axes.plot(xs, ys, label=_short(series.name), color="0.8", lw=0.7, zorder=1)
        else:
            _plot(axes, series, names.index(series.name))
    if chart.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        # Within a decade the values between its ends are named too, and as plain numbers.
        axes.yaxis.set_minor_formatter(PlainLogFormatter())
    else:
        axes.set_ylim(bottom=0)
    _legend(figure, axes, chart)
    return figure


def _draw_bars(chart: Chart) -> Figure:
    measured = [series for series in chart.series if not series.published]
    names = {point.y: point.label for series in measured for point in series.points}
    figure, axes = _start(chart, 0.6 + TEXT_LINE * len(names))
    for number, series in enumerate(chart.series):
        xs, ys = [point.x for point in series.points], [point.y for point in series.points]
        if series.published or len(measured) > 1:
            _plot(axes, series, number)
            continue
        bars = axes.barh(ys, xs, height=0.6, color=COLOURS[0], alpha=0.75)
        bars.set_label(series.name)
        deviations = [point.deviation for point in series.points]
        axes.errorbar(xs, ys, xerr=deviations, fmt="none", ecolor="black", capsize=2)
    axes.set_yticks(list(names), [_short(name) for name in names.values()])
    axes.set_ylim(min(names) - 0.6, max(names) + 0.6)
    axes.set_xlim(left=0)
    axes.grid(visible=len(measured) > 1, axis="y")
    _legend(figure, axes, chart)
    return figure


def _start(chart: Chart, height: float, key: Sequence[str] = ()) -> tuple[Figure, Axes]:
    """Start a figure with room for title and legend, and `height` inches for the rest."""
    title = textwrap.wrap(chart.title, LINE)
    names = _names(chart, key)
    rows = -(-len(names) // _columns(names)) if names else 0
    figure = Figure(figsize=(WIDTH, height + TEXT_LINE * (len(title) + rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=chart.x, ylabel=chart.y)
    figure.suptitle("\n".join(title), fontsize=TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _plot(axes: Axes, series: Series, number: int) -> None:
    """Plot a series with its own colour, mark and dash; published ones are hollow."""
    kind, turn = number % len(COLOURS), number // len(COLOURS)
    xs, ys = [point.x for point in series.points], [point.y for point in series.points]
    many = len(xs) > FEW
    axes.plot(
        xs,
        ys,
        label=_short(series.name),
        color="0.35" if series.published else COLOURS[kind],
        marker="D" if series.published else MARKS[(kind + turn) % len(MARKS)],
        markerfacecolor="none" if series.published else None,
        markevery=max(1, len(xs) // MARKED) if series.line and many else None,
        linestyle=DASHES[(kind + 2 * turn) % len(DASHES)] if series.line else "none",
        zorder=3,
        clip_on=False,
    )
    deviations = [point.deviation for point in series.points]
    if not all(map(math.isnan, deviations)):
        # Without a label for y, its axis counts rows.
        along_x = not axes.get_ylabel()
        axes.errorbar(
            xs,
            ys,
            xerr=deviations if along_x else None,
            yerr=None if along_x else deviations,
            fmt="none",
            ecolor="0.4",
            elinewidth=0.8,
            zorder=2,
        )


def _legend(figure: Figure, axes: Axes, chart: Chart, key: Sequence[str] = ()) -> None:
    """Explain marks, each name once, and numbers below the picture."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = _names(chart, key)
    if names:
        figure.legend(
            [handles.get(name, Line2D([], [], linestyle="none")) for name in names],
            names,
            loc="outside lower center",
            ncols=_columns(names),
            frameon=False,
            handlelength=3,
            columnspacing=1.2,
        )


def _names(chart: Chart, key: Sequence[str]) -> list[str]:
    """Entries of the legend: series, if there are several, and a key of numbers."""
    quiet_last = sorted(chart.series, key=lambda series: series.quiet)
    series = list(dict.fromkeys(_short(series.name) for series in quiet_last))
    named = [*([FRONT] if chart.front else []), *series]
    return [*(named if len(named) > 1 else []), *key]


def _columns(names: Sequence[str]) -> int:
    return max(1, LINE // (max(map(len, names)) + len("-o-  ")))


def _to_label(chart: Chart) -> list[Point]:
    """Points to label: measured before published ones of that name; if many, the front."""
    points = {
        (point.label, series.name if series.line else ""): point
        for series in reversed(chart.series)
        for point in series.points
    }
    chosen = list(points.values())
    return chosen if len(chosen) <= LABELS else list(chart.front)[:LABELS]


def _short(name: str) -> str:
    return textwrap.shorten(name, LINE - 10, placeholder=" ...")
