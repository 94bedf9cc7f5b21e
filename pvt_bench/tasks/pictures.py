"""Sheets of images with what was predicted beside the truth."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as mask_api
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from pvt_bench.colours import GREEN, VERMILION
from pvt_bench.escaping import one_line

TRUTH, PREDICTION = GREEN, VERMILION
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
    panels = []
    for image, target in spread_over(view, images):
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
    _save_tiled(panels, path)


def draw_classifications(path: Path, view: Any, predictions: Any, images: int = 16) -> None:
    """A sheet of `images` with their label, and where it differs the guess.

    predictions: a table with `image_id`, `label` and `guess1`.
    """
    guesses = dict(zip(predictions["image_id"], predictions["guess1"], strict=True))
    panels = []
    for image, target in spread_over(view, images):
        truth, guess = int(target["label"]), guesses[int(target["image_id"])]
        names = [view.class_names[label] for label in (truth, guess)]
        text = names[0] if truth == guess else f"{names[0]}, taken for {names[1]}"
        colour = TRUTH if truth == guess else PREDICTION
        panels.append(_caption(_enlarge(image), text, colour))
    _save_tiled(panels, path)


def spread_over(view: Any, images: int) -> Iterator[tuple[Tensor, Any]]:
    """At most so many images of a view with their targets, evenly spaced."""
    step = max(1, len(view) // images)
    for index in range(0, min(len(view), step * images), step):
        yield view[index]


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
    _write(ImageDraw.Draw(drawn), (4, 2), text, 18, colour)
    return drawn


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, colour: str
) -> None:
    """Write a line of white text on a colour."""
    font, text = ImageFont.load_default(size), one_line(text)
    draw.rectangle(draw.textbbox(place, text, font=font), fill=colour)
    draw.text(place, text, fill="white", font=font)


def _enlarge(image: Tensor) -> Image.Image:
    """An image (3, H, W) in [0, 1] at the height of the sheet's rows."""
    width = max(1, round(image.shape[-1] * HEIGHT / image.shape[-2]))
    return to_pil_image(image).resize((width, HEIGHT), Image.Resampling.BICUBIC)


def _save_tiled(panels: Sequence[Image.Image], path: Path, columns: int = 4, gap: int = 6) -> None:
    """Save panels of one height side by side, row by row, on white."""
    width = max(panel.width for panel in panels) + gap
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (width * columns, (HEIGHT + gap) * rows), "white")
    for place, panel in enumerate(panels):
        sheet.paste(panel, (place % columns * width, place // columns * (HEIGHT + gap)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


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
    for box, label in zip(boxes, labels, strict=True):
        left, top, width, height = (value * scale for value in box["bbox"])
        draw.rectangle((left, top, left + width, top + height), outline=colour, width=3)
        # Inside the image also where the box touches its upper edge.
        _write(draw, (left + 3, max(0.0, top - 20)), label, 16, colour)
    return drawn
