"""A COCO annotation file, read once: its entries in COCO's own form, and all that is wrong."""

import gc
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pvt_bench.datasets.coco.canonical import Row, canonicalise
from pvt_bench.datasets.coco.entries import judge_object, judge_outline, why_dropped
from pvt_bench.datasets.coco.values import is_name, is_positive, is_whole
from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.kinds import Fault, Kind

PARTS = ("images", "annotations", "categories")


@dataclass
class Document:
    """The usable entries of an annotation file, and what is wrong with it.

    images: those with a name and a size, by id. classes: names by id. objects: the annotations of
    these images; `used` are those that are trained on or scored, in the file's order. dropped
    counts the others by reason, changed what was brought into COCO's form. digest: the SHA-256 of
    the file.
    """

    name: str
    training: bool
    digest: str = ""
    faults: list[Fault] = field(default_factory=list)
    changed: dict[str, int] = field(default_factory=dict)
    images: dict[int, Row] = field(default_factory=dict)
    classes: dict[int, str] = field(default_factory=dict)
    objects: list[Row] = field(default_factory=list)
    used: list[Row] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def size(self, image_id: int) -> tuple[int, int]:
        """The (height, width) of an image."""
        return self.images[image_id]["height"], self.images[image_id]["width"]

    def read_images(self) -> list[int]:
        """The ids of the images that are read: training leaves out those without a usable box."""
        if not self.training or not self.used:
            return list(self.images)
        boxed = {row["image_id"] for row in self.used}
        return [number for number in self.images if number in boxed]

    def outline_faults(self) -> Iterator[Fault]:
        """What is wrong with the segmentations of the objects."""
        for row in self.objects:
            for kind, detail in judge_outline(row.get("segmentation"), self.size(row["image_id"])):
                yield Fault(kind, f"{self.name} annotation {row['id']}", detail)


def read_document(path: Path, training: bool) -> Document:
    """Read an annotation file, and judge all of it but its segmentations."""
    document = Document(f"{path.parent.name}/{path.name}", training)
    try:
        content, document.digest = parse_json(path)
    except FileNotFoundError:
        document.faults.append(Fault(kinds.FILE_MISSING, document.name))
        return document
    except (OSError, ValueError) as error:
        document.faults.append(Fault(kinds.CUT_JSON, document.name, str(error)))
        return document
    parts = content if isinstance(content, dict) else {}
    missing = [part for part in PARTS if not isinstance(parts.get(part), list)]
    document.faults += [
        Fault(kinds.LACKS_KEY, document.name, f"the list {part!r}") for part in missing
    ]
    if not missing:
        with collecting_no_garbage():
            document.changed = canonicalise(content)
            _read_categories(document, content["categories"])
            _read_images(document, content["images"])
            _read_objects(document, content["annotations"])
    return document


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


def _read_categories(document: Document, rows: list[Any]) -> None:
    usable = list(_usable(document, "categories", rows, {"id": is_whole, "name": is_name}))
    document.classes = dict(sorted((row["id"], row["name"]) for row in usable))
    _add_duplicates(document, kinds.DUPLICATE_CATEGORY_ID, (row["id"] for row in usable))


def _read_images(document: Document, rows: list[Any]) -> None:
    sides = {"height": is_positive, "width": is_positive}
    expected = {"id": is_whole, "file_name": is_name, **sides}
    usable = list(_usable(document, "images", rows, expected))
    document.images = {row["id"]: row for row in usable}
    _add_duplicates(document, kinds.DUPLICATE_IMAGE_ID, (row["id"] for row in usable))
    _add_duplicates(document, kinds.DUPLICATE_FILE_NAME, (row["file_name"] for row in usable))


def _read_objects(document: Document, rows: list[Any]) -> None:
    expected = dict.fromkeys(("id", "image_id", "category_id"), is_whole)
    usable = list(_usable(document, "annotations", rows, expected))
    for row in usable:
        known = row["image_id"] in document.images
        size = document.size(row["image_id"]) if known else None
        found = list(judge_object(row, size, document.classes, document.training))
        where = f"{document.name} annotation {row['id']}"
        document.faults += [Fault(kind, where, detail) for kind, detail in found]
        if known:
            document.objects.append(row)
        if reason := why_dropped(row, (kind for kind, _ in found), document.training):
            document.dropped[reason] += 1
        else:
            document.used.append(row)
    _add_duplicates(document, kinds.DUPLICATE_ANNOTATION_ID, (row["id"] for row in usable))
    if not document.used:
        document.faults.append(Fault(kinds.NOTHING_USABLE, document.name))


def _usable(
    document: Document, part: str, rows: list[Any], expected: Mapping[str, Callable[[Any], bool]]
) -> Iterator[Row]:
    """The rows that have all the `expected` keys; the others are faults."""
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            missing = ["object"]
        else:
            missing = [key for key, fits in expected.items() if not fits(row.get(key))]
        if missing:
            where = f"{document.name} entry {number} of {part!r}"
            detail = f"no usable {', '.join(map(repr, missing))}: {str(row)[:120]}"
            document.faults.append(Fault(kinds.LACKS_KEY, where, detail))
        else:
            yield row


def _add_duplicates(document: Document, kind: Kind, values: Iterable[Hashable]) -> None:
    for value, count in Counter(values).items():
        if count > 1:
            document.faults.append(Fault(kind, f"{document.name} {value}", f"{count} times"))
