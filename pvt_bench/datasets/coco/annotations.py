"""COCO's instance annotations as flat arrays.

Forked loader workers share flat arrays; lists of dicts they would copy page by page. The format:
https://cocodataset.org/#format-data
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pvt_bench.datasets.coco.canonical import Row
from pvt_bench.datasets.coco.document import Document, read_document
from pvt_bench.datasets.coco.entries import CROWD, DROPPED
from pvt_bench.datasets.coco.outlines import Outlines
from pvt_bench.datasets.faults.kinds import check
from pvt_bench.datasets.fingerprints import file_stamp
from pvt_bench.datasets.index import Index, load_index


@dataclass(frozen=True)
class Annotations:
    """The I images and N objects of one annotation file, objects grouped by image.

    Objects of image i are rows `offsets[i]` to `offsets[i + 1]`. `boxes` (N, 4) are float32 XYXY
    in pixels of the file's image, clipped to it; `labels` (N,) count from 0 in the order of the
    `category_ids` (K,); `sizes` (I, 2) are (height, width). `raw_boxes` (N, 4) are the file's own,
    XYWH, and `areas` (N,) in pixels, both of 64 bits. `segmentations` are the file's own.
    `dropped` counts by reason what was left out, `changed` what was brought into COCO's form.
    """

    categories: list[str]
    category_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    file_names: NDArray[np.str_]
    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    raw_boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    labels: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]
    segmentations: Outlines
    dropped: dict[str, int]
    changed: dict[str, int]
    fingerprint: str

    def as_document(self) -> dict[str, Any]:
        """The same in the form of COCO's file, for its metric, tables and pictures."""
        of_object = np.repeat(self.image_ids, np.diff(self.offsets))
        columns = (self.ids, of_object, self.category_ids[self.labels], self.areas, self.iscrowd)
        objects = [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "area": area,
                "iscrowd": int(crowd),
                "bbox": box,
                "segmentation": self.segmentations[row],
            }
            for row, (number, image, category, area, crowd, box) in enumerate(
                zip(*(each.tolist() for each in (*columns, self.raw_boxes)), strict=True)
            )
        ]
        images = [
            {"id": number, "height": height, "width": width, "file_name": name}
            for number, (height, width), name in zip(
                self.image_ids.tolist(), self.sizes.tolist(), self.file_names.tolist(), strict=True
            )
        ]
        categories = [{"id": number, "name": name} for number, name in self.names_by_id().items()]
        return {"images": images, "annotations": objects, "categories": categories}

    def names_by_id(self) -> dict[int, str]:
        """The names of the categories by their ids."""
        return dict(zip(self.category_ids.tolist(), self.categories, strict=True))


def read_annotations(
    path: Path,
    training: bool,
    index: Path | None = None,
    read: Callable[[], Document] | None = None,
) -> Annotations:
    """Read and check an annotation file, or take what a folder, `index`, has kept of it.

    Boxes that are not finite or without width or height are dropped; for training also crowd
    regions, and then images without a box, as in Detectron2 and MMDetection.

    read: gives the document, by default as it is in the file.

    Raises:
        InputError: the first faults of the file of severity "error".
    """
    read = read or partial(read_document, path, training)

    def build() -> Index:
        document = read()
        check(document.faults)
        return _pack(document)

    try:
        stamp = file_stamp(path)
    except OSError:
        build()  # which says so
        raise
    variant = "training" if training else "evaluation"
    arrays, facts = load_index(index, path, stamp, build, variant)
    held = {**facts, **arrays}
    outlines = Outlines(**{field.name: held.pop(field.name) for field in fields(Outlines)})
    held["file_names"] = np.char.decode(held["file_names"], "utf-8")
    return Annotations(**held, segmentations=outlines)


def _pack(document: Document) -> Index:
    """The content of a document without errors, as `Annotations` and `Outlines` name it."""
    image_ids = document.read_images()
    images = [document.images[number] for number in image_ids]
    place = {number: row for row, number in enumerate(image_ids)}
    label = {number: row for row, number in enumerate(document.classes)}
    rows = sorted(document.used, key=lambda row: place[row["image_id"]])
    counts = np.bincount(_column(rows, lambda row: place[row["image_id"]]), minlength=len(images))
    sizes = np.array([(row["height"], row["width"]) for row in images], np.int64).reshape(-1, 2)
    raw_boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    corners = np.concatenate([raw_boxes[:, :2], raw_boxes[:, :2] + raw_boxes[:, 2:]], axis=1)
    edges = np.tile(sizes[:, ::-1], 2).repeat(counts, axis=0)
    outlines = Outlines.pack(row.get("segmentation") for row in rows)
    arrays = {
        "category_ids": np.array(list(document.classes), np.int64),
        "image_ids": np.array(image_ids, np.int64),
        "sizes": sizes,
        "file_names": np.char.encode(np.array([row["file_name"] for row in images], str), "utf-8"),
        "offsets": np.concatenate([[0], np.cumsum(counts)]),
        "ids": _column(rows, itemgetter("id")),
        "boxes": np.clip(corners, 0, edges).astype(np.float32),
        "raw_boxes": raw_boxes,
        "areas": np.array([_area(row["area"]) for row in rows], np.float64),
        "labels": _column(rows, lambda row: label[row["category_id"]]),
        "iscrowd": _column(rows, itemgetter("iscrowd")).astype(np.bool_),
        **{field.name: getattr(outlines, field.name) for field in fields(Outlines)},
    }
    dropped = {reason: document.dropped[reason] for reason in (CROWD, *DROPPED.values())}
    dropped["images without boxes"] = len(document.images) - len(images)
    facts = {"categories": list(document.classes.values()), "dropped": dropped}
    return Index(arrays, {**facts, "changed": document.changed, "fingerprint": document.digest})


def _column(rows: list[Row], value: Callable[[Row], int]) -> NDArray[np.int64]:
    return np.array([value(row) for row in rows], np.int64)


def _area(value: float) -> float:
    """An area as a float; one that has no room in it, which only training takes, is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
