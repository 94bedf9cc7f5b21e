"""What is wrong with the segmentations of a COCO annotation file."""

from collections.abc import Iterator
from typing import Any

from faster_coco_eval.core import mask as mask_api

from pvt_bench.datasets.coco.annotation_faults import Document, Found, Row, Size
from pvt_bench.datasets.coco.canonical import is_polygon, is_run_lengths
from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.kinds import Fault


def segmentation_faults(document: Document, read: bool) -> Iterator[Fault]:
    """What is wrong with the objects' outlines; notes where the task does not `read` them."""
    for row in document.objects:
        for kind, detail in _judge_outline(
            row.get("segmentation"), document.sizes[row["image_id"]]
        ):
            told = kind if read else kind.as_note("This task does not read it.")
            yield Fault(told, f"{document.name} annotation {row['id']}", detail)


def _judge_outline(outline: Any, size: Size) -> Found:
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
