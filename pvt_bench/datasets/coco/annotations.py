"""COCO's instance annotations, checked once and held as flat arrays.

Forked loader workers share flat arrays; lists of dicts they would copy page by page. The format:
https://cocodataset.org/#format-data
"""

import gc
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pvt_bench.datasets.coco.canonical import LARGEST, canonicalise
from pvt_bench.datasets.coco.outlines import Outlines
from pvt_bench.datasets.fingerprints import file_stamp
from pvt_bench.datasets.index import Index, load_index
from pvt_bench.errors import InputError

# Pixels. Thinner boxes can lose their extent when float32 coordinates are resized.
MIN_SIDE = 0.01


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
        kinds = zip(self.category_ids.tolist(), self.categories, strict=True)
        categories = [{"id": number, "name": name} for number, name in kinds]
        return {"images": images, "annotations": objects, "categories": categories}


def parse_json(path: Path) -> tuple[Any, str]:
    """The value in a file of JSON, and the SHA-256 of its bytes.

    It is in UTF-8, or in UTF-16 or 32 as some tools of Windows write it. Raises OSError where it
    cannot be read, and ValueError where it is not JSON, or nested too deep.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    text = content.decode(json.detect_encoding(content))
    del content  # of COCO's training half a gigabyte, as the text
    try:
        with collecting_no_garbage():
            return json.loads(text), digest
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_json(path: Path) -> tuple[dict[str, Any], dict[str, int], str]:
    """A COCO file in canonical form, what was changed for that, and the SHA-256 of its bytes."""
    try:
        document, digest = parse_json(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(
            f"{path} ({path.stat().st_size} bytes) is not whole JSON: {error}. "
            "It may have been cut short: copy or unpack it again."
        ) from error
    for part in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(part), list):
            raise InputError(
                f"{path} is JSON but not COCO's: the list {part!r} is missing. Expected an object "
                "with the lists 'images', 'annotations' and 'categories', as in "
                "instances_val2017.json."
            )
    with collecting_no_garbage():
        return document, canonicalise(document), digest


@contextmanager
def collecting_no_garbage() -> Iterator[None]:
    """There is none while JSON is read, and looking for it takes 40 % of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_annotations(path: Path, training: bool, index: Path | None = None) -> Annotations:
    """Read and check an annotation file, or take what a folder, `index`, has kept of it.

    Boxes that are not finite or without width or height are dropped; for training also crowd
    regions, and then images without a box, as in Detectron2 and MMDetection.

    Raises:
        InputError: the file is no COCO file, or an id is duplicate, unknown or below 1.
    """
    try:
        stamp = file_stamp(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    arrays, facts = load_index(
        index,
        path,
        stamp,
        partial(_parse, path, training),
        variant="training" if training else "evaluation",
    )
    held = {**facts, **arrays}
    outlines = Outlines(**{field.name: held.pop(field.name) for field in fields(Outlines)})
    held["file_names"] = np.char.decode(held["file_names"], "utf-8")
    return Annotations(**held, segmentations=outlines)


def _parse(path: Path, training: bool) -> Index:
    """The content of an annotation file, as `Annotations` and `Outlines` name it."""
    document, changed, fingerprint = read_json(path)
    kinds = _Table(path, "categories", document)
    images = _Table(path, "images", document)
    objects = _Table(path, "annotations", document)
    category_ids, image_ids = np.sort(kinds.ids()), images.ids()
    sizes = np.stack([images.column("height", np.int64), images.column("width", np.int64)], axis=1)
    image_index = objects.look_up("image_id", image_ids, "images")
    labels = objects.look_up("category_id", category_ids, "categories")
    ids = objects.ids()
    iscrowd = objects.column("iscrowd", np.int64).astype(np.bool_)
    areas = objects.column("area", np.float64)
    raw_boxes = objects.column("bbox", np.float64, shape=(4,))
    boxes, unusable = clip_boxes(
        raw_boxes,
        sizes[image_index],
        iscrowd & training,
    )
    order = np.flatnonzero(~np.any(list(unusable.values()), axis=0))
    order = order[np.argsort(image_index[order], kind="stable")]
    counts = np.bincount(image_index[order], minlength=len(image_ids))
    used = (counts > 0) | (not training)
    outlines = Outlines.pack(objects.rows[row].get("segmentation") for row in order)
    arrays = {
        "category_ids": category_ids,
        "image_ids": image_ids[used],
        "sizes": sizes[used],
        "file_names": np.char.encode(images.column("file_name", np.str_)[used], "utf-8"),
        "offsets": np.concatenate([[0], np.cumsum(counts[used])]),
        "ids": ids[order],
        "boxes": boxes[order].astype(np.float32),
        "raw_boxes": raw_boxes[order],
        "areas": areas[order],
        "labels": labels[order],
        "iscrowd": iscrowd[order],
        **{field.name: getattr(outlines, field.name) for field in fields(Outlines)},
    }
    dropped = {
        **{reason: int(rows.sum()) for reason, rows in unusable.items()},
        "images without boxes": int((~used).sum()),
    }
    categories = kinds.column("name", np.str_)[np.argsort(kinds.ids())].tolist()
    facts = {"categories": categories, "dropped": dropped, "changed": changed}
    return Index(arrays, {**facts, "fingerprint": fingerprint})


def clip_boxes(
    boxes: NDArray[np.float64], sizes: NDArray[np.int64], left_out: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.bool_]]]:
    """Turn XYWH boxes (N, 4) into XYXY, clipped to images of (height, width) `sizes` (N, 2).

    Also tells which boxes (N,) are unusable, by reason, each for one reason only: crowd regions
    that are `left_out` (N,), then what is wrong with the others.
    """
    finite: NDArray[np.bool_] = np.asarray((np.abs(boxes) < LARGEST).all(axis=1))
    boxes = np.where(finite[:, None], boxes, 0)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners = np.clip(corners, 0, np.tile(sizes[:, ::-1], 2))
    extended = (corners[:, 2:] - corners[:, :2] >= MIN_SIDE).all(axis=1)
    return corners, {
        "crowd regions": left_out,
        "boxes not finite": ~left_out & ~finite,
        "boxes without width or height": ~left_out & finite & ~extended,
    }


class _Table:
    """One list of a COCO file, read by column."""

    def __init__(self, path: Path, part: str, document: dict[str, Any]) -> None:
        self.path = path
        self.part = part
        self.rows: list[dict[str, Any]] = document[part]

    def column(self, key: str, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> NDArray[Any]:
        """The values of `key` as an array (rows, *shape).

        An InputError names the first row whose value cannot be that.
        """
        if not self.rows:
            return np.empty((0, *shape), dtype)
        values = _convert(self.rows, key, dtype)
        if values is not None and values.shape == (len(self.rows), *shape):
            return values
        for number, row in enumerate(self.rows):
            value = _convert([row], key, dtype)
            if value is None or value.shape != (1, *shape):
                expected = f"{shape[0]} numbers" if shape else np.dtype(dtype).name
                raise InputError(
                    f"{self.path}: entry {number} of {self.part!r} has no usable {key!r} "
                    f"(expected {expected}): {str(row)[:200]}"
                )
        raise AssertionError(f"{key} of {self.part} is usable by row, but not as a whole")

    def ids(self) -> NDArray[np.int64]:
        """The rows' ids, each of them once."""
        ids: NDArray[np.int64] = self.column("id", np.int64)
        found, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise InputError(
                f"{self.path}: duplicate id {found[counts > 1][0]} in {self.part!r} "
                f"({(counts > 1).sum()} duplicate ids). Expected each id once."
            )
        return ids

    def look_up(self, key: str, ids: NDArray[np.int64], part: str) -> NDArray[np.int64]:
        """Where in `ids`, those of the list `part`, each row's `key` stands."""
        wanted = self.column(key, np.int64)
        order = np.argsort(ids)
        places = np.searchsorted(ids, wanted, sorter=order)
        known = np.isin(wanted, ids)
        if not known.all():
            first = int(np.flatnonzero(~known)[0])
            raise InputError(
                f"{self.path}: annotation {self.rows[first].get('id')} has {key} {wanted[first]}, "
                f"which is not in {part!r} ({(~known).sum()} such annotations)."
            )
        return order[places] if len(wanted) else wanted


def _convert(rows: list[dict[str, Any]], key: str, dtype: DTypeLike) -> NDArray[Any] | None:
    try:
        values = np.array([row[key] for row in rows], dtype)
        if values.dtype.kind == "U":
            np.char.encode(values, "utf-8")
        return values
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        return None
