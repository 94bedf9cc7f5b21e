"""Pictures of predictions beside the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as mask_api
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from pvt_bench.escaping import one_line

# Okabe and Ito's colours, which people with colour-blindness tell apart.
TRUTH, PREDICTION = "#009E73", "#D55E00"
HEIGHT = 320
SCORE = 0.4


def draw_detections(
    path: Path, view: Any, found: Sequence[dict[str, Any]], images: int = 8
) -> None:
    """A sheet of `images` pairs: left the truth, right the detections that score at least 0.4.

    view: the validation images, whose `ground_truth` has the boxes; found: COCO's results format.
    Masks are drawn where the detections have them.
    """
    names = {kind["id"]: kind["name"] for kind in view.ground_truth["categories"]}
    truth = view.ground_truth["annotations"]
    masks = any("segmentation" in each for each in found)
    step = max(1, len(view) // images)
    panels = []
    for index in range(0, min(len(view), step * images), step):
        image, target = view[index]
        of_image = int(target["image_id"])
        canvas = _enlarge(image)
        height, width = (int(side) for side in target["size"])
        scale = HEIGHT / height
        boxes = [a for a in truth if a["image_id"] == of_image]
        best = [f for f in found if f["image_id"] == of_image and f["score"] >= SCORE]
        labels = [f"{names[f['category_id']]} {f['score']:.2f}" for f in best]
        left = right = canvas
        if masks:
            left = _shade(canvas, [b["segmentation"] for b in boxes], (height, width), TRUTH)
            right = _shade(canvas, [f["segmentation"] for f in best], (height, width), PREDICTION)
        panels.append(_draw(left, boxes, [names[b["category_id"]] for b in boxes], scale, TRUTH))
        panels.append(_draw(right, best, labels, scale, PREDICTION))
    path.parent.mkdir(parents=True, exist_ok=True)
    _tile(panels).save(path)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_classifications(path: Path, view: Any, predictions: Any, images: int = 16) -> None:
    """A sheet of `images` with their label, and where it differs the guess.

    predictions: a table with `image_id`, `label` and `guess1`.
    """
    step = max(1, len(view) // images)
    guesses = dict(zip(predictions["image_id"], predictions["guess1"], strict=True))
    panels = []
    for index in range(0, min(len(view), step * images), step):
        image, target = view[index]
        truth, guess = int(target["label"]), guesses[int(target["image_id"])]
        names = [view.class_names[label] for label in (truth, guess)]
        text = names[0] if truth == guess else f"{names[0]}, taken for {names[1]}"
        colour = TRUTH if truth == guess else PREDICTION
        panels.append(_caption(_enlarge(image), text, colour))
    path.parent.mkdir(parents=True, exist_ok=True)
    _tile(panels).save(path)


def _shade(
    canvas: Image.Image, outlines: Sequence[Any], size: tuple[int, int], colour: str
) -> Image.Image:
    """A copy of the canvas with masks half over it.

    outlines: polygons or run lengths of an image of `size` (height, width).
    """
    drawn = canvas.copy()
    for outline in outlines:
        mask = mask_api.decode(mask_api.segmToRle(outline, size[1], size[0]))
        shape = Image.fromarray(mask * np.uint8(128)).resize(canvas.size)
        drawn.paste(Image.new("RGB", canvas.size, colour), mask=shape)
    return drawn


def _caption(canvas: Image.Image, text: str, colour: str) -> Image.Image:
    """A copy of the canvas with a line of text at its upper edge."""
    drawn = canvas.copy()
    draw = ImageDraw.Draw(drawn)
    font, text = ImageFont.load_default(18), one_line(text)
    draw.rectangle(draw.textbbox((4, 2), text, font=font), fill=colour)
    draw.text((4, 2), text, fill="white", font=font)
    return drawn


def _enlarge(image: Tensor) -> Image.Image:
    """An image (3, H, W) in [0, 1] at the height of the sheet's rows."""
    width = max(1, round(image.shape[-1] * HEIGHT / image.shape[-2]))
    return to_pil_image(image).resize((width, HEIGHT), Image.Resampling.BICUBIC)


def _tile(panels: Sequence[Image.Image], columns: int = 4, gap: int = 6) -> Image.Image:
    """Panels of one height side by side, row by row, on white."""
    width = max(panel.width for panel in panels) + gap
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (width * columns, (HEIGHT + gap) * rows), "white")
    for place, panel in enumerate(panels):
        sheet.paste(panel, (place % columns * width, place // columns * (HEIGHT + gap)))
    return sheet


def _draw(
    canvas: Image.Image,
    boxes: Sequence[dict[str, Any]],
    labels: Sequence[str],
    scale: float,
    colour: str,
) -> Image.Image:
    """A copy of the canvas with boxes (COCO's: left, top, width, height) and their labels."""
    drawn = canvas.copy()
    draw = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(16)
    for box, label in zip(boxes, map(one_line, labels), strict=True):
        left, top, width, height = (value * scale for value in box["bbox"])
        draw.rectangle((left, top, left + width, top + height), outline=colour, width=3)
        # Inside the image also where the box touches its upper edge.
        place = (left + 3, max(0.0, top - 20))
        draw.rectangle(draw.textbbox(place, label, font=font), fill=colour)
        draw.text(place, label, fill="white", font=font)
    return drawn
