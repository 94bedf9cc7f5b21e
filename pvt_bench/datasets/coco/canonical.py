"""COCO's JSON in the one form that training, the score, tables and pictures read.

Other tools leave out keys, write ids as text or count them from 0. Where only one meaning is
possible, entries get the form of COCO's own files and the changes are counted; all else stays as
it is, to be refused.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from faster_coco_eval.core import mask as mask_api

from pvt_bench.datasets.coco.values import (
    MASK,
    is_finite,
    is_number,
    is_polygon,
    is_run_lengths,
    is_whole,
    number,
    whole,
)

Document = dict[str, Any]
Row = dict[str, Any]
CROWD = {0: 0, 1: 1, "0": 0, "1": 1, "": 0, None: 0}  # false is 0 there, and true is 1


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


def _is_outline(value: Any) -> bool:
    if isinstance(value, dict):
        return is_run_lengths(value.get("counts"))
    return isinstance(value, list) and bool(value) and all(map(is_polygon, value))


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
    if not named or all(map(is_whole, ids)):
        return
    places = {value: place for place, value in enumerate(dict.fromkeys(ids), start=1)}
    for row in rows:
        row["id"] = places[row["id"]]
    for row in objects:
        if _key(row.get(key)) in places:
            row[key] = places[row[key]]
        elif key in row:
            row[key] = None if is_whole(row[key]) else row[key]
    done[told] += len(rows)


def _number(done: Counter[str], objects: list[Row]) -> None:
    """Ids of objects from 1 on, in the file's order, unless they are positive numbers already.

    Only COCO's metric uses them, which takes an object with the id 0 for a missing one.
    """
    for row in objects:
        row["id"] = whole(row.get("id"))
    ids = [row["id"] for row in objects]
    if all(is_whole(value) and value > 0 for value in ids):
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
    if isinstance(outline, list) and outline and all(map(is_number, outline)):
        row["segmentation"] = [outline]
        done["flat lists of points read as one polygon"] += 1
    area = row["area"] = number(row.get("area"))
    if not is_number(area):
        measured = _measure(row, size)
        if measured is not None:
            row["area"] = measured
            done["areas computed from masks or boxes"] += 1


def _measure(row: Row, size: tuple[Any, Any]) -> float | None:
    """The pixels of an object's mask, or else of its box; None where there is no usable box."""
    height, width = size
    outline, box = row.get("segmentation"), row.get("bbox")
    sized = is_whole(height) and is_whole(width) and 0 < height * width < MASK
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
