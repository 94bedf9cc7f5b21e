"""A tiny tree in COCO's layout with the oddities of the real one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

CATEGORY_IDS = (1, 3, 90)
SIZES = ((80, 100), (64, 120), (96, 72), (70, 70), (90, 64), (64, 64), (100, 80), (75, 65))
UPRIGHT_SIZE = (110, 66)  # (height, width) of the last image once its EXIF orientation is applied
EMPTY_IMAGE, GREY_IMAGE, PALETTE_IMAGE, CMYK_IMAGE, CROWD_IMAGE = 4, 5, 6, 7, 8
ROTATED_IMAGE = len(SIZES) + 1
FLAT_BOX_ID = 3


def write_coco_tree(root: Path) -> Path:
    """Write both splits below `root`: nine images each, ids from 1, three categories.

    Image 1 has an object of each segmentation format, image 2 a box without height beside a good
    one, image 3 a box that reaches over the edge; see the constants above for the others.
    """
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True)
        images = _write_images(root / split)
        document = {
            "info": {"description": "for tests"},
            "licenses": [],
            "images": images,
            "annotations": _annotations(),
            "categories": [{"id": i, "name": f"kind{i}"} for i in reversed(CATEGORY_IDS)],
        }
        annotation_file = root / "annotations" / f"instances_{split}.json"
        annotation_file.parent.mkdir(exist_ok=True)
        annotation_file.write_text(json.dumps(document))
    return root


def rectangle(size: tuple[int, int], x: int, y: int, width: int, height: int) -> np.ndarray:
    """A mask (H, W) uint8 of a rectangle given in pixels."""
    mask = np.zeros(size, np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return mask


def _write_images(folder: Path) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    images = []
    for number, (height, width) in enumerate((*SIZES, UPRIGHT_SIZE), start=1):
        name = f"{number:012d}.{'png' if number == PALETTE_IMAGE else 'jpg'}"
        pixels = np.kron(
            rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8),
            np.ones((8, 8, 1), np.uint8),
        )[:height, :width]
        _save(Image.fromarray(pixels), number, folder / name)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
    return images


def _save(image: Image.Image, number: int, path: Path) -> None:
    modes = {GREY_IMAGE: "L", PALETTE_IMAGE: "P", CMYK_IMAGE: "CMYK"}
    exif = Image.Exif()
    if number == ROTATED_IMAGE:
        exif[0x0112] = 6  # stored a quarter turn counterclockwise of upright
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.convert(modes.get(number, "RGB")).save(path, exif=exif)


def _annotations() -> list[dict[str, Any]]:
    compressed = mask_api.encode(rectangle(SIZES[0], 30, 40, 21, 30))
    counts = compressed["counts"].decode()
    crowd = {"size": list(SIZES[7]), "counts": [10 * 75 + 5, 20, 55, 20, 75 * 65 - 850]}
    boxes: list[tuple[int, int, list[float], Any]] = [
        (1, 1, [10, 20, 30, 15], None),
        (1, 3, [30, 40, 21, 30], {"size": list(SIZES[0]), "counts": counts}),
        (2, 90, [5, 6, 20, 0], None),
        (2, 1, [50, 10, 40.5, 44.5], None),
        (3, 90, [40, 60, 60, 60], None),
        (1, 90, [0, 0, 1, 3], {"size": list(SIZES[0]), "counts": [0, 3, 7997]}),
        (5, 3, [8, 8, 32, 40], None),
        (6, 1, [0, 0, 64, 64], None),
        (7, 3, [20, 20, 16, 16], None),
        (8, 3, [10, 5, 2, 20], crowd),
        (8, 3, [30, 30, 10, 10], None),
        (9, 1, [6, 8, 30, 60], None),
    ]
    return [
        {
            "id": number,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(segmentation is crowd),
            "segmentation": segmentation or [_polygon(*box)],
        }
        for number, (image_id, category_id, box, segmentation) in enumerate(boxes, start=1)
    ]


def _polygon(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]
