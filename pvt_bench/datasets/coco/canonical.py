"""COCO's JSON in the one form that all here read: training, the score, tables and pictures.

Other tools leave out keys, write ids as text or count them from 0. Where only one meaning is
possible, entries get the form of COCO's own files, and it is counted what was changed; all else
stays as it is, for the readers to refuse.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from faster_coco_eval.core import mask as mask_api

Document = dict[str, Any]
Row = dict[str, Any]
CROWD = {0: 0, 1: 1, "0": 0, "1": 1, "": 0, None: 0}  # false is 0 there, and true is 1
MASK = 2**31  # pixels; no image that is read has as many
FAR = 2**20  # pixels; the library that fills polygons walks along every pixel of their edges
SURROGATE = re.compile("[\ud800-\udfff]")  # which JSON can hold, and no file or screen
LARGEST = 2**53  # up to it every whole number is exact in all tools that read JSON


def canonicalise(document: Document) -> dict[str, int]:
    """Bring `images`, `annotations` and `categories`, lists of a COCO file, into COCO's form.

    Changes the entries in place. Returns how many values were changed, by what was done.
    """
    images, objects, kinds = (
        [row for row in document[part] if isinstance(row, dict)]
        for part in ("images", "annotations", "categories")
    )
    done: Counter[str] = Counter()
    _unify_ids(done, images, objects, "image_id", "image ids numbered anew from 1")
    _unify_ids(done, kinds, objects, "category_id", "category ids numbered anew from 1")
    for row in images:
        row |= {key: whole(row[key]) for key in ("width", "height") if key in row}
    _tell_names_apart(done, kinds)
    sizes = {_key(row.get("id")): (row.get("height"), row.get("width")) for row in images}
    for row in objects:
        _complete(done, row, sizes.get(_key(row.get("image_id")), (None, None)))
    _number(done, objects)
    return {what: count for what, count in done.items() if count}


def whole(value: Any) -> Any:
    """A whole number in whatever form, `7.0` or `"7"`, as int; any other value as it is."""
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value


def number(value: Any) -> Any:
    """A number, also where it is written as text; any other value as it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def is_name(value: Any) -> bool:
    """Whether a value is a text that is not empty and has no halves of characters."""
    return isinstance(value, str) and bool(value) and not SURROGATE.search(value)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that arithmetic can use; true and false are not."""
    return type(value) in (int, float) and abs(value) < LARGEST and not math.isnan(value)


def is_polygon(value: Any) -> bool:
    """Whether a value is a list of at least three points, [x1, y1, x2, y2, ...], in reach."""
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2:
        return False
    return all(is_finite(each) and abs(each) < FAR for each in value)


def is_run_lengths(value: Any) -> bool:
    """Whether a value can be the `counts` of a mask, as a list or packed into a text."""
    if isinstance(value, list):
        return all(type(each) is int and 0 <= each < MASK for each in value)
    return isinstance(value, str)


def _is_outline(value: Any) -> bool:
    if isinstance(value, dict):
        return is_run_lengths(value.get("counts"))
    return isinstance(value, list) and bool(value) and all(map(is_polygon, value))


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < LARGEST


def _key(value: Any) -> Any:
    """An id as a key of a dict: lists and objects, which are none, have no key."""
    return value if isinstance(value, str | int | float) else None


def _unify_ids(
    done: Counter[str], rows: list[Row], objects: list[Row], key: str, told: str
) -> None:
    """Make ids of `rows`, and the `key` that refers to them, whole numbers.

    Ids that are names count from 1 on in the file's order.
    """
    for row, name in [*((row, "id") for row in rows), *((row, key) for row in objects)]:
        if name in row:
            row[name] = whole(row[name])
    ids = [row.get("id") for row in rows]
    named = all((isinstance(value, str) and value) or type(value) is int for value in ids)
    if not named or all(map(_is_id, ids)):
        return
    places = {value: place for place, value in enumerate(dict.fromkeys(ids), start=1)}
    for row in rows:
        row["id"] = places[row["id"]]
    for row in objects:
        if _key(row.get(key)) in places:
            row[key] = places[row[key]]
        elif key in row:
            row[key] = None if _is_id(row[key]) else row[key]
    done[told] += len(rows)


def _number(done: Counter[str], objects: list[Row]) -> None:
    """Ids of objects from 1 on, in the file's order, unless they are positive numbers already.

    Only COCO's metric uses them, which takes an object with the id 0 for a missing one.
    """
    for row in objects:
        row["id"] = whole(row.get("id"))
    ids = [row["id"] for row in objects]
    if all(_is_id(value) and value > 0 for value in ids):
        return
    known = Counter(value for value in map(_key, ids) if value is not None)
    if known and known.most_common(1)[0][1] > 1:
        return  # which the readers refuse: an object may be there twice
    for place, row in enumerate(objects, start=1):
        row["id"] = place
    done["annotation ids numbered anew from 1"] += len(objects)


def _tell_names_apart(done: Counter[str], kinds: list[Row]) -> None:
    """Categories of one name get their id behind it."""
    if len({_key(row.get("id")) for row in kinds}) < len(kinds):
        return  # which the readers refuse
    names = Counter(row["name"] for row in kinds if isinstance(row.get("name"), str))
    for row in kinds:
        if names.get(_key(row.get("name")), 0) > 1:
            row["name"] = f"{row['name']} ({row.get('id')})"
            done["categories of one name told apart by their id"] += 1


def _complete(done: Counter[str], row: Row, size: tuple[Any, Any]) -> None:
    """Give an object `iscrowd`, `area` and a list of polygons.

    size: (height, width) of its image.
    """
    crowd = row.get("iscrowd")
    if crowd is None or isinstance(crowd, str | int | float):
        row["iscrowd"] = CROWD.get(crowd, crowd)
    outline = row.get("segmentation")
    if isinstance(outline, list) and outline and all(type(x) in (int, float) for x in outline):
        row["segmentation"] = [outline]
        done["flat lists of points read as one polygon"] += 1
    area = row["area"] = number(row.get("area"))
    if type(area) not in (int, float):
        measured = _measure(row, size)
        if measured is not None:
            row["area"] = measured
            done["areas computed from masks or boxes"] += 1


def _measure(row: Row, size: tuple[Any, Any]) -> float | None:
    """The pixels of an object's mask, or else of its box; None where there is no usable box."""
    height, width = size
    outline, box = row.get("segmentation"), row.get("bbox")
    sized = _is_id(height) and _is_id(width) and 0 < height * width < MASK
    if sized and _is_outline(outline):
        try:
            return float(mask_api.area(mask_api.segmToRle(outline, width, height)))
        except (KeyError, IndexError, RuntimeError, TypeError, ValueError, OverflowError):
            pass  # whether outlines are read is for the task to say
    if isinstance(box, list) and len(box) == 4 and all(map(is_finite, box)):
        return float(max(box[2], 0) * max(box[3], 0))
    return None


def describe(changes: Mapping[str, int]) -> str:
    """What was changed, for people: `12 areas computed, 3 image ids numbered anew`."""
    return ", ".join(f"{count:,} {what}" for what, count in changes.items())
