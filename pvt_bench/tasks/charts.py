"""Figures of how a network errs: matrices, curves, segmentations beside the truth."""

import colorsys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from pvt_bench.colours import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW
from pvt_bench.escaping import one_line
from pvt_bench.tasks.pictures import PREDICTION, TRUTH, spread_over

# Of the largest classes, in this order.
COLOURS = (BLUE, ORANGE, GREEN, YELLOW, SKY, VERMILION, PURPLE, BLACK)
# More class names than this cannot be read beside a matrix, or leave the maps no room.
NAMED_ROWS, NAMED_MAPS = 40, 24

Labels = NDArray[np.uint8]


@rc_context({"text.parse_math": False})  # A dollar sign in a name begins no formula.
def draw_confusion(path: Path, names: list[str], matrix: NDArray[np.int64]) -> None:
    """Counts (n, n) as shares of their row: light where little, dark where much.

    The classes of the truth are the rows, those of the prediction the columns.
    """
    names = [one_line(name) for name in names]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 4.5 + 0.22 * min(len(names), NAMED_ROWS)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="cividis_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= NAMED_ROWS:
        places = range(len(names))
        axes.set_xticks(places, names, rotation=90)
        axes.set_yticks(places, names)
    figure.colorbar(image, shrink=0.8, label="share of the true class")
    _save(figure, path)


def draw_precision_recall(path: Path, curves: Any) -> None:
    """Precision over recall, a line for each threshold; boxes solid, masks dashed.

    curves: a table with `recall` and columns such as `precision50` and `mask_precision75`.
    """
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in curves.columns.drop("recall"):
        axes.plot(
            curves["recall"],
            curves[name],
            color=TRUTH if name.endswith("50") else PREDICTION,
            linestyle="--" if name.startswith("mask_") else "-",
            label=f"{'masks' if name.startswith('mask_') else 'boxes'}, IoU 0.{name[-2:]}",
        )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def draw_segmentations(
    path: Path, view: Any, predicted: Callable[[int], Labels], images: int = 4
) -> None:
    """A sheet with a row for each of `images`: the image, the truth, the prediction.

    view: the validation images. predicted: gives the labels (H, W) for an image id. Ignored pixels
    of the truth are white.
    """
    rows = []
    for image, target in spread_over(view, images):
        labels = predicted(int(target["image_id"]))
        rows.append((image.permute(1, 2, 0).numpy(), target["segments"].numpy(), labels))
    palette, legend = colour(rows, view.class_names)
    figure = Figure(figsize=(9, 2.6 * len(rows) + 1), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for places, (shown, truth, labels) in zip(axes, rows, strict=True):
        height, width = truth.shape
        for place, picture in zip(places, (shown, palette[truth], palette[labels]), strict=True):
            # The image, which was resized for the test, too in the shape of its file.
            place.imshow(picture, interpolation="nearest", extent=(0, width, height, 0))
            place.axis("off")
    for place, title in zip(axes[0], ("image", "truth", "prediction"), strict=True):
        place.set_title(title)
    figure.legend(handles=legend, loc="outside lower center", ncols=6, fontsize="small")
    _save(figure, path)


def colour(
    rows: list[tuple[NDArray[np.float32], Labels, Labels]], names: list[str]
) -> tuple[NDArray[np.float64], list[Patch]]:
    """Red, green and blue (256, 3) of each label, and the legend of the largest classes shown."""
    shown = np.concatenate([labels.ravel() for row in rows for labels in row[1:]])
    pixels = np.bincount(shown, minlength=256)[: len(names)]
    largest = np.argsort(-pixels, kind="stable")
    palette = np.ones((256, 3))
    for place, label in enumerate(largest):
        palette[label] = to_rgb(COLOURS[place]) if place < len(COLOURS) else further(place)
    present = [label for label in largest[:NAMED_MAPS] if pixels[label]]
    return palette, [Patch(color=palette[label], label=names[label]) for label in present]


def further(place: int) -> tuple[float, float, float]:
    """One more colour: hues a golden section apart, in three brightnesses."""
    return colorsys.hsv_to_rgb(place * 0.618 % 1, 0.55, (0.95, 0.75, 0.5)[place % 3])


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
