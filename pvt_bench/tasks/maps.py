"""Pictures of segmentations beside the truth."""

import colorsys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

# Okabe and Ito's colours, which people with colour-blindness tell apart, for the largest classes.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#F0E442", "#56B4E9", "#D55E00", "#CC79A7", "#000000"]
# Named below the pictures: the largest classes; more names leave the pictures no room.
NAMED = 24

Labels = NDArray[np.uint8]


def draw_segmentations(
    path: Path, view: Any, predicted: Callable[[int], Labels], images: int = 4
) -> None:
    """A sheet with a row for each of `images`: the image, the truth, the prediction.

    view: the validation images. predicted: gives the labels (H, W) for an image id. Ignored pixels
    of the truth are white.
    """
    rows = []
    step = max(1, len(view) // images)
    for index in range(0, min(len(view), step * images), step):
        image, target = view[index]
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


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
    present = [label for label in largest[:NAMED] if pixels[label]]
    return palette, [Patch(color=palette[label], label=names[label]) for label in present]


def further(place: int) -> tuple[float, float, float]:
    """One more colour: hues a golden section apart, in three brightnesses."""
    return colorsys.hsv_to_rgb(place * 0.618 % 1, 0.55, (0.95, 0.75, 0.5)[place % 3])
