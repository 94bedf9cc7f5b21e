"""Pictures of predictions beside the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

# Okabe and Ito's colours, which people with colour-blindness tell apart.
TRUTH, PREDICTION = "#009E73", "#D55E00"
HEIGHT = 320
SCORE = 0.4


def draw_detections(
    path: Path, view: Any, found: Sequence[dict[str, Any]], images: int = 8
) -> None:
    """A sheet of `images` pairs: left the truth, right the detections that score at least 0.4.

    view: the validation images, whose `ground_truth` has the boxes; found: COCO's results format.
    """
    names = dict(zip(view.category_ids, view.categories, strict=True))
    truth = view.ground_truth["annotations"]
    step = max(1, len(view) // images)
    panels = []
    for index in range(0, min(len(view), step * images), step):
        image, target = view[index]
        of_image = int(target["image_id"])
        canvas = _enlarge(image)
        scale = HEIGHT / int(target["size"][0])
        boxes = [a for a in truth if a["image_id"] == of_image]
        best = [f for f in found if f["image_id"] == of_image and f["score"] >= SCORE]
        labels = [f"{names[f['category_id']]} {f['score']:.2f}" for f in best]
        panels.append(_draw(canvas, boxes, [names[b["category_id"]] for b in boxes], scale, TRUTH))
        panels.append(_draw(canvas, best, labels, scale, PREDICTION))
    path.parent.mkdir(parents=True, exist_ok=True)
    _tile(panels).save(path)


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
    for box, label in zip(boxes, labels, strict=True):
        left, top, width, height = (value * scale for value in box["bbox"])
        draw.rectangle((left, top, left + width, top + height), outline=colour, width=3)
        # Inside the image also where the box touches its upper edge.
        place = (left + 3, max(0.0, top - 20))
        draw.rectangle(draw.textbbox(place, label, font=font), fill=colour)
        draw.text(place, label, fill="white", font=font)
    return drawn
