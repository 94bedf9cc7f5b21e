"""Placement of labels beside their points without overlaps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from numpy.typing import NDArray

from pvt_bench.report.pictures.charts import Point

# Points of 1/72 inch between a mark and its label, the nearest first.
DISTANCES = (4, 7, 11, 16, 22, 30, 40, 52)
# Right, left, above, below before the corners and what is between them.
ANGLES = (0, 180, 90, 270, 45, 135, 315, 225, 22, 158, 338, 202, 68, 112, 292, 248)
MARK = 3.0
# Beyond this a line leads from the label to its point.
NEAR = 8

# Left, bottom, right, top, in pixels.
Box = tuple[float, float, float, float]
Place = tuple[float, float]


class Spot(NamedTuple):
    """Possible place of a label: its centre relative to its point, the box that it covers, and
    small boxes along the line that leads to it."""

    offset: Place
    box: Box
    leader: list[Box]


def place_labels(
    axes: Axes,
    points: Sequence[Point],
    size: float,
    marks: Sequence[Point],
    lines: Sequence[Sequence[Point]],
    front: Sequence[Point] = (),
) -> list[Annotation] | None:
    """Write each point's label where it covers no mark, no line and no other label.

    The figure's layout must be final. marks: all points of the picture; lines: through which
    of them lines go; front: through which a thin one goes in steps, which a label avoids where it
    can stay near its point.

    Returns:
        The labels, or None, and nothing is written, where there is no room for all of them.
    """
    scale = axes.figure.dpi / 72
    places = [_place(axes, point.x, point.y) for point in points]
    covered = [box for mark in marks for box in _extents(axes, mark, MARK * scale)]
    covered += [box for line in lines for box in _line(axes, line, scale)]
    thin = _array(list(_line(axes, _steps(front), 1)))
    labels: list[Box] = []
    written: list[Annotation] = []
    # The crowded ones choose first.
    for number in sorted(range(len(points)), key=lambda n: -_crowding(places[n], places)):
        label = _write(axes, points[number], size)
        written.append(label)
        extent = Text.get_window_extent(label)  # without the line that leads to it
        taken = _array([*covered, *labels])
        spots = [
            spot
            for spot in _spots(places[number], extent.width, extent.height, scale)
            if _is_free(spot.box, axes, taken)
        ]
        if not spots:
            for each in written:
                each.remove()
            return None
        spot = _choose(spots, _array(labels), thin)
        label.set_position(spot.offset)
        if not spot.leader and label.arrow_patch is not None:
            label.arrow_patch.set_visible(False)
        labels.append(spot.box)
    return written


def is_far(label: Annotation) -> bool:
    """Whether a line leads from a label to its point."""
    return label.arrow_patch is not None and label.arrow_patch.get_visible()


def _write(axes: Axes, point: Point, size: float) -> Annotation:
    return axes.annotate(
        point.label,
        (point.x, point.y),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=size,
        ha="center",
        va="center",
        # The front may run behind a label.
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
        arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 2},
    )


def _spots(place: Place, width: float, height: float, scale: float) -> Iterator[Spot]:
    """Possible places for a label of a size in pixels, best first."""
    for distance in DISTANCES:
        for angle in ANGLES:
            dx = math.cos(math.radians(angle)) * (distance * scale + width / 2)
            dy = math.sin(math.radians(angle)) * (distance * scale + height / 2)
            x, y = place[0] + dx, place[1] + dy
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            leader = list(_along(place, (x, y), scale)) if distance > NEAR else []
            yield Spot((dx / scale, dy / scale), box, leader)


def _choose(spots: Sequence[Spot], labels: NDArray, thin: NDArray) -> Spot:
    """Choose a spot near the point and off the thin line; else rather a farther one than one whose
    line crosses another label."""
    near = (spot for spot in spots if not spot.leader and not _overlaps(spot.box, thin))
    clear = (spot for spot in spots if not any(_overlaps(box, labels) for box in spot.leader))
    return next(near, None) or next(clear, spots[0])


def _is_free(box: Box, axes: Axes, taken: NDArray) -> bool:
    inside = axes.get_window_extent()
    within = inside.x0 <= box[0] and box[2] <= inside.x1
    within = within and inside.y0 <= box[1] and box[3] <= inside.y1
    return within and not _overlaps(box, taken)


def _overlaps(box: Box, others: NDArray) -> bool:
    left, bottom, right, top = others.T
    apart = (right <= box[0]) | (left >= box[2]) | (top <= box[1]) | (bottom >= box[3])
    return bool((~apart).any())


def _array(boxes: Sequence[Box]) -> NDArray:
    return np.array(boxes, dtype=float).reshape(-1, 4)


def _crowding(place: Place, places: Sequence[Place]) -> int:
    return sum(math.dist(place, other) < 100 for other in places)


def _place(axes: Axes, x: float, y: float) -> Place:
    across, up = axes.transData.transform((x, y))
    return float(across), float(up)


def _extents(axes: Axes, mark: Point, radius: float) -> Iterator[Box]:
    """Boxes that a mark and the thin line of its deviation cover."""
    more = 0.0 if math.isnan(mark.deviation) else mark.deviation
    (x, low), (_, y), (_, high) = (_place(axes, mark.x, mark.y + by) for by in (-more, 0, more))
    yield (x - radius, y - radius, x + radius, y + radius)
    yield (x - 1, low, x + 1, high)


def _line(axes: Axes, points: Sequence[Point], radius: float) -> Iterator[Box]:
    corners = [_place(axes, point.x, point.y) for point in points]
    for start, end in pairwise(corners):
        yield from _along(start, end, radius)


def _steps(front: Sequence[Point]) -> list[Point]:
    """Points of the front with the corners between them: right, then up."""
    corners = [replace(left, x=right.x) for left, right in pairwise(front)]
    return [point for pair in zip(front, [*corners, *front[-1:]], strict=True) for point in pair]


def _along(start: Place, end: Place, radius: float) -> Iterator[Box]:
    """Small boxes along a line."""
    steps = max(1, math.ceil(math.dist(start, end) / (2 * radius)))
    for step in range(steps + 1):
        x, y = (a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
        yield (x - radius, y - radius, x + radius, y + radius)
