"""What is wrong with an object of a COCO annotation file, and what becomes of it."""

from collections.abc import Container, Iterable, Iterator
from typing import Any

from faster_coco_eval.core import mask as mask_api

from pvt_bench.datasets.coco.canonical import Row
from pvt_bench.datasets.coco.values import is_finite, is_number, is_polygon, is_run_lengths
from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.kinds import Kind

# Pixels. Thinner boxes can lose their extent when float32 coordinates are resized.
MIN_SIDE = 0.01
OUTSIDE = 1.0  # pixels; COCO's own boxes reach over the edge by rounding
Size = tuple[int, int]
Found = Iterator[tuple[Kind, str]]

# What objects are counted as that are dropped; with other faults of the box a file is refused.
CROWD = "crowd regions"
DROPPED = {
    kinds.BOX_NOT_FINITE: "boxes not finite",
    kinds.BOX_WITHOUT_AREA: "boxes without width or height",
}
UNUSABLE = {kinds.UNKNOWN_IMAGE, kinds.UNKNOWN_CATEGORY, kinds.MALFORMED_BOX, *DROPPED}


def why_dropped(row: Row, found: Iterable[Kind], training: bool) -> str | None:
    """Why an object with the faults `found` is not used; None where it is."""
    if training and row["iscrowd"]:
        return CROWD
    return next((DROPPED.get(kind, kind.name) for kind in found if kind in UNUSABLE), None)


def judge_object(row: Row, size: Size | None, classes: Container[int], training: bool) -> Found:
    """Everything wrong with an annotation but its segmentation.

    size: (height, width) of its image, None where that is not known.
    """
    if row["category_id"] not in classes:
        yield kinds.UNKNOWN_CATEGORY, f"category_id {row['category_id']}"
    if type(row["iscrowd"]) is not int or row["iscrowd"] not in (0, 1):
        yield kinds.BAD_CROWD, f"iscrowd {str(row['iscrowd'])[:80]!r}"
    yield from _judge_area(row, training)
    if size is None:
        yield kinds.UNKNOWN_IMAGE, f"image_id {row['image_id']}"
    else:
        yield from _judge_box(row.get("bbox"), size)


def judge_outline(outline: Any, size: Size) -> Found:
    """What is wrong with polygons or run lengths on an image of (height, width) `size`."""
    if not outline:
        yield kinds.NO_SEGMENTATION, ""
    elif isinstance(outline, list):
        if not all(map(is_polygon, outline)):
            yield kinds.MALFORMED_SEGMENTATION, "expected polygons [x1, y1, x2, y2, x3, y3, ...]"
    elif isinstance(outline, dict) and outline.get("size") not in (None, list(size)):
        yield kinds.OTHER_SEGMENTATION_SIZE, f"{outline['size']}, expected {list(size)}"
    elif not isinstance(outline, dict):
        yield kinds.MALFORMED_SEGMENTATION, str(outline)[:80]
    else:
        yield from _judge_run_lengths(outline, size)


def _judge_area(row: Row, training: bool) -> Found:
    area: Any = row.get("area")
    if not is_number(area):
        # It was to be had neither from a mask nor from a box, and the latter is told by itself.
        return
    if not is_finite(area) or area < 0:
        told = kinds.BAD_AREA.as_note("Training does not read it.") if training else kinds.BAD_AREA
        yield told, f"area {str(area)[:80]}"
    elif area == 0:
        yield kinds.BAD_AREA.as_note("COCO's metric takes it for a small object."), "area 0"


def _judge_box(box: Any, size: Size) -> Found:
    """What is wrong with a box [x, y, width, height] on an image of (height, width) `size`."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        yield kinds.MALFORMED_BOX, f"bbox {str(box)[:80]}"
        return
    if not all(map(is_finite, box)):
        yield kinds.BOX_NOT_FINITE, f"bbox {str(box)[:80]}"
        return
    x, y, width, height = box
    if min(width, height) >= MIN_SIDE:
        beyond = max(-x, -y, x + width - size[1], y + height - size[0])
        if beyond > OUTSIDE:
            yield kinds.BOX_OUTSIDE, f"bbox {box}, the image is {size[1]} x {size[0]}"
    left = [min(x + width, size[1]) - max(x, 0), min(y + height, size[0]) - max(y, 0)]
    if min(left) < MIN_SIDE:
        yield kinds.BOX_WITHOUT_AREA, f"bbox {box}, within the image"


def _judge_run_lengths(outline: Row, size: Size) -> Found:
    height, width = size
    counts = outline.get("counts")
    if not is_run_lengths(counts):
        yield kinds.MALFORMED_SEGMENTATION, "expected 'counts', run lengths or a text"
        return
    try:
        if isinstance(counts, list):
            covered = sum(counts)
        else:
            covered = mask_api.decode(mask_api.segmToRle(outline, width, height)).size
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        yield kinds.MALFORMED_SEGMENTATION, f"{type(error).__name__}: {error}"
        return
    if covered != height * width:
        yield kinds.MALFORMED_SEGMENTATION, f"it covers {covered} of {height * width} pixels"
