"""What is wrong with a COCO annotation file, entry by entry."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pvt_bench.datasets.coco.annotations import MIN_SIDE, collecting_no_garbage, parse_json
from pvt_bench.datasets.coco.canonical import LARGEST, canonicalise, is_finite, is_name
from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.kinds import Fault, Kind

PARTS = ("images", "annotations", "categories")
OUTSIDE = 1.0  # pixels; COCO's own boxes reach over the edge by rounding
Row = dict[str, Any]
Size = tuple[int, int]
Found = Iterator[tuple[Kind, str]]


@dataclass
class Document:
    """What is wrong with an annotation file, and what of it can be used.

    `files` and `sizes`, (height, width), are those of the images by id; `classes` the names by id;
    `objects` the annotations whose image is known; `unread` the ids of the images that training
    leaves out, since they have no usable box.
    """

    name: str
    faults: list[Fault] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, Size] = field(default_factory=dict)
    classes: dict[int, str] = field(default_factory=dict)
    objects: list[Row] = field(default_factory=list)
    unread: set[int] = field(default_factory=set)

    def read_files(self) -> dict[str, Size]:
        """The images that are read, with their (height, width)."""
        return {self.files[i]: size for i, size in self.sizes.items() if i not in self.unread}

    def unread_files(self) -> dict[str, Size]:
        """The others."""
        return {self.files[i]: self.sizes[i] for i in sorted(self.unread)}


def read_document(root: Path, name: str, training: bool) -> Document:
    """Read the annotation file `name` below `root`, and judge all but its segmentations."""
    document = Document(name)
    try:
        content, _ = parse_json(root / name)
    except FileNotFoundError:
        document.faults.append(Fault(kinds.FILE_MISSING, name))
        return document
    except (OSError, ValueError) as error:
        document.faults.append(Fault(kinds.CUT_JSON, name, str(error)))
        return document
    parts = content if isinstance(content, dict) else {}
    missing = [part for part in PARTS if not isinstance(parts.get(part), list)]
    document.faults += [Fault(kinds.LACKS_KEY, name, f"the list {part!r}") for part in missing]
    if not missing:
        with collecting_no_garbage():
            canonicalise(content)
        _read_categories(document, parts["categories"])
        _read_images(document, parts["images"])
        _read_annotations(document, parts["annotations"], training)
    return document


def _read_categories(document: Document, rows: list[Any]) -> None:
    usable = list(_usable(document, "categories", rows, {"id": _is_whole, "name": is_name}))
    document.classes = {row["id"]: row["name"] for row in usable}
    _add_duplicates(document, kinds.DUPLICATE_CATEGORY_ID, (row["id"] for row in usable))


def _read_images(document: Document, rows: list[Any]) -> None:
    expected = {
        "id": _is_whole,
        "file_name": is_name,
        "height": _is_positive,
        "width": _is_positive,
    }
    usable = list(_usable(document, "images", rows, expected))
    for row in usable:
        document.files[row["id"]] = row["file_name"]
        document.sizes[row["id"]] = (row["height"], row["width"])
    _add_duplicates(document, kinds.DUPLICATE_IMAGE_ID, (row["id"] for row in usable))
    _add_duplicates(document, kinds.DUPLICATE_FILE_NAME, (row["file_name"] for row in usable))


def _read_annotations(document: Document, rows: list[Any], training: bool) -> None:
    expected = {"id": _is_whole, "image_id": _is_whole, "category_id": _is_whole}
    usable = list(_usable(document, "annotations", rows, expected))
    boxed: set[int] = set()
    for row in usable:
        found = list(_judge(row, document, training))
        where = f"{document.name} annotation {row['id']}"
        document.faults += [Fault(kind, where, detail) for kind, detail in found]
        if not (training and row.get("iscrowd")) and UNUSABLE.isdisjoint(k.name for k, _ in found):
            boxed.add(row["image_id"])
    document.objects = [row for row in usable if row["image_id"] in document.sizes]
    _add_duplicates(document, kinds.DUPLICATE_ANNOTATION_ID, (row["id"] for row in usable))
    if not boxed:
        document.faults.append(Fault(kinds.NOTHING_USABLE, document.name))
    elif training:
        document.unread = document.sizes.keys() - boxed


UNUSABLE = {
    kind.name
    for kind in (
        kinds.UNKNOWN_IMAGE,
        kinds.UNKNOWN_CATEGORY,
        kinds.MALFORMED_BOX,
        kinds.BOX_NOT_FINITE,
        kinds.BOX_WITHOUT_AREA,
    )
}


def _judge(row: Row, document: Document, training: bool) -> Found:
    """Everything wrong with an annotation but its segmentation."""
    if row["category_id"] not in document.classes:
        yield kinds.UNKNOWN_CATEGORY, f"category_id {row['category_id']}"
    if type(row["iscrowd"]) is not int or row["iscrowd"] not in (0, 1):
        yield kinds.BAD_CROWD, f"iscrowd {str(row['iscrowd'])[:80]!r}"
    yield from _judge_area(row, training)
    size = document.sizes.get(row["image_id"])
    if size is None:
        yield kinds.UNKNOWN_IMAGE, f"image_id {row['image_id']}"
    else:
        yield from _judge_box(row.get("bbox"), size)


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


def _usable(
    document: Document, part: str, rows: list[Any], expected: dict[str, Any]
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


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number; true and false are not."""
    return type(value) in (int, float)


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < LARGEST


def _is_positive(value: Any) -> bool:
    return _is_whole(value) and value > 0
