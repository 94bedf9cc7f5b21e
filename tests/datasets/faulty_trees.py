"""Whole trees of each format, and a fault of each kind to plant in them.

A plant takes the tree's root and gives what must be found: pairs of a kind and of where it is.
"""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.kinds import Kind

Found = set[tuple[str, str]]
Plant = Callable[[Path], Found]

COCO_SIZE = (80, 64)  # width, height
TRAIN, VAL = "annotations/instances_train2017.json", "annotations/instances_val2017.json"
VICTIM = "val2017/000000000002.jpg"


def write_plain_coco(root: Path) -> Path:
    """Both splits below `root`: four images with two objects each, of two categories, no oddity."""
    width, height = COCO_SIZE
    for split in ("train2017", "val2017"):
        images, objects = [], []
        for number in range(1, 5):
            name = f"{number:012d}.jpg"
            save_noise(root / split / name, COCO_SIZE)
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            for category in (1, 3):
                x, y = 5 * category, 4 * number
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": number,
                        "category_id": category,
                        "bbox": [x, y, 20, 30],
                        "area": 600,
                        "iscrowd": 0,
                        "segmentation": [[x, y, x + 20, y, x + 20, y + 30, x, y + 30]],
                    }
                )
        categories = [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]
        document = {"images": images, "annotations": objects, "categories": categories}
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(document))
    return root


def save_noise(path: Path, size: tuple[int, int], mode: str = "RGB", **options: Any) -> None:
    """Save an image of noise, (width, height) `size`."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path, **options)


# Files of images, wherever they are.


def leave(file: str, *found: Kind) -> Callable[[Callable[[Path], Any]], Plant]:
    """A plant that changes one file, which then has the faults `found`."""

    def wrap(change: Callable[[Path], Any]) -> Plant:
        def plant(root: Path) -> Found:
            change(root / file)
            return {(kind.name, file) for kind in found}

        return plant

    return wrap


def cut(path: Path, share: float = 0.5) -> None:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def cut_header(path: Path) -> None:
    """Keep so little that not even the size is left."""
    path.write_bytes(path.read_bytes()[:12])


def claim_size(path: Path, width: int = 30_000, height: int = 10_000) -> None:
    """Have a JPEG's header claim a size in pixels."""
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    path.write_bytes(content)


def write_dds(path: Path) -> None:
    """A DDS file of pixels in a form that Pillow knows by name only."""
    fields = struct.pack("<7I", 124, 0x1007, 64, 80, 0, 0, 0)
    form = struct.pack("<2I4s5I", 32, 4, b"1111", 0, 0, 0, 0, 0)
    path.write_bytes(b"DDS " + fields + bytes(44) + form + bytes(20))


def write_heic(path: Path) -> None:
    """The beginning of a photograph of a telephone."""
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))


def rotate(path: Path) -> None:
    """Store the image a quarter turn off, and say so in EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def mark_rotated(path: Path) -> None:
    """Have EXIF say that the image is to be turned, though its annotations are as before."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif)


def save_deep(path: Path, values: int = 2**16) -> None:
    """An image of 16 bits, of whose `values` it uses all."""
    pixels = np.linspace(0, values - 1, COCO_SIZE[0] * COCO_SIZE[1]).astype(np.uint16)
    Image.fromarray(pixels.reshape(COCO_SIZE[::-1])).save(path, format="PNG")


IMAGES: dict[str, Plant] = {
    "missing": leave(VICTIM, kinds.FILE_MISSING)(lambda path: path.unlink()),
    "empty": leave(VICTIM, kinds.FILE_EMPTY)(lambda path: path.write_bytes(b"")),
    "truncated": leave(VICTIM, kinds.DAMAGED)(cut),
    "cut in its header": leave(VICTIM, kinds.DAMAGED)(cut_header),
    "text": leave(VICTIM, kinds.NOT_AN_IMAGE)(lambda path: path.write_text("<html>404</html>")),
    "CMYK": leave(VICTIM, kinds.CMYK)(lambda path: save_noise(path, COCO_SIZE, "CMYK")),
    "grey": leave(VICTIM, kinds.GREY)(lambda path: save_noise(path, COCO_SIZE, "L")),
    "16 bits": leave(VICTIM, kinds.DEEP, kinds.OTHER_FORMAT)(save_deep),
    "12 bits in 16": leave(VICTIM, kinds.UNKNOWN_RANGE, kinds.DEEP, kinds.OTHER_FORMAT)(
        lambda path: save_deep(path, 2**12)
    ),
    "palette": leave(VICTIM, kinds.PALETTE, kinds.OTHER_FORMAT)(
        lambda path: save_noise(path, COCO_SIZE, "P", format="PNG")
    ),
    "transparent": leave(VICTIM, kinds.TRANSPARENT, kinds.OTHER_FORMAT)(
        lambda path: save_noise(path, COCO_SIZE, "RGBA", format="PNG")
    ),
    "rotated": leave(VICTIM, kinds.EXIF_ROTATED)(rotate),
    "rotated, its annotations not": leave(VICTIM, kinds.EXIF_ROTATED, kinds.SIZE_AS_STORED)(
        mark_rotated
    ),
    "other size": leave(VICTIM, kinds.OTHER_SIZE)(lambda path: save_noise(path, (81, 64))),
    "tiny": leave(VICTIM, kinds.TINY, kinds.OTHER_SIZE)(lambda path: save_noise(path, (8, 64))),
    "huge": leave(VICTIM, kinds.HUGE)(claim_size),
    "bomb": leave(VICTIM, kinds.HUGE)(lambda path: claim_size(path, 60_000, 60_000)),
    "DDS": leave(VICTIM, kinds.NOT_DECODED)(write_dds),
    "HEIC": leave(VICTIM, kinds.NOT_DECODED)(write_heic),
    "no folder": leave("val2017/", kinds.FOLDER_MISSING)(shutil.rmtree),
}

# COCO's JSON.


def edit(
    change: Callable[[dict[str, Any]], Any], *found: tuple[Kind, str], file: str = VAL
) -> Plant:
    """A plant that changes an annotation file; `found` are the kinds and which entry has them."""

    def plant(root: Path) -> Found:
        document = json.loads((root / file).read_text())
        change(document)
        (root / file).write_text(json.dumps(document))
        return {(kind.name, f"{file} {entry}".strip()) for kind, entry in found}

    return plant


def set_value(key: str, value: Any, *found: Kind, file: str = VAL) -> Plant:
    """A plant that sets a key of annotation 3."""
    pairs = [(kind, "annotation 3") for kind in found]
    return edit(lambda d: d["annotations"][2].update({key: value}), *pairs, file=file)


def drop_key(part: str, key: str) -> Plant:
    """A plant that takes a key from the entry 1 of a list."""
    return edit(lambda d: d[part][1].pop(key), (kinds.LACKS_KEY, f"entry 1 of '{part}'"))


JSON: dict[str, Plant] = {
    "missing": leave(VAL, kinds.FILE_MISSING)(lambda path: path.unlink()),
    "cut short": leave(VAL, kinds.CUT_JSON)(lambda path: cut(path, 0.99)),
    "no JSON": leave(VAL, kinds.CUT_JSON)(lambda path: path.write_bytes(b"\xff\xd8\xff")),
    "a list": leave(VAL, kinds.LACKS_KEY)(lambda path: path.write_text("[]")),
    "no bytes": leave(VAL, kinds.CUT_JSON)(lambda path: path.write_bytes(b"")),
    "too deep": leave(VAL, kinds.CUT_JSON)(
        lambda path: path.write_text("[" * 100_000 + "]" * 100_000)
    ),
    "a folder": leave(VAL, kinds.CUT_JSON)(lambda path: (path.unlink(), path.mkdir())),
    "name too long": lambda root: _name_image(root, "x" * 5000),
    "half a character": edit(
        lambda d: d["images"].append(d["images"][1] | {"id": 9, "file_name": "\ud800.jpg"}),
        (kinds.LACKS_KEY, "entry 4 of 'images'"),
    ),
    "class of half a character": edit(
        lambda d: d["categories"].append({"id": 4, "name": "\ud800"}),
        (kinds.LACKS_KEY, "entry 2 of 'categories'"),
    ),
    "no list": edit(lambda d: d.pop("annotations"), (kinds.LACKS_KEY, "")),
    "image without name": edit(
        lambda d: d["images"].append({"id": 9, "height": 64, "width": 80}),
        (kinds.LACKS_KEY, "entry 4 of 'images'"),
    ),
    "image without height": edit(
        lambda d: d["images"].append({"id": 9, "file_name": "9.jpg", "width": 80}),
        (kinds.LACKS_KEY, "entry 4 of 'images'"),
    ),
    "annotation without image": drop_key("annotations", "image_id"),
    "annotation without category": drop_key("annotations", "category_id"),
    "annotation is no object": edit(
        lambda d: d["annotations"].append(3), (kinds.LACKS_KEY, "entry 8 of 'annotations'")
    ),
    "duplicate image id": edit(
        lambda d: d["images"].append(d["images"][1] | {"file_name": "000000000003.jpg"}),
        (kinds.DUPLICATE_IMAGE_ID, "2"),
        (kinds.DUPLICATE_FILE_NAME, "000000000003.jpg"),
    ),
    "duplicate file name": edit(
        lambda d: d["images"].append(d["images"][1] | {"id": 9}),
        (kinds.DUPLICATE_FILE_NAME, "000000000002.jpg"),
    ),
    "duplicate annotation id": edit(
        lambda d: d["annotations"][3].update(id=3), (kinds.DUPLICATE_ANNOTATION_ID, "3")
    ),
    "unknown image": set_value("image_id", 77, kinds.UNKNOWN_IMAGE),
    "unknown category": set_value("category_id", 2, kinds.UNKNOWN_CATEGORY),
    "duplicate category": edit(
        lambda d: d["categories"].append({"id": 3, "name": "dog"}),
        (kinds.DUPLICATE_CATEGORY_ID, "3"),
    ),
    "other categories": edit(
        lambda d: d["categories"].append({"id": 4, "name": "cow"}), (kinds.OTHER_CATEGORIES, "")
    ),
    "box of three": set_value("bbox", [1, 2, 3], kinds.MALFORMED_BOX),
    "box of words": set_value("bbox", ["1", 2, 3, 4], kinds.MALFORMED_BOX),
    "no box": set_value("bbox", None, kinds.MALFORMED_BOX),
    "box not finite": set_value("bbox", [1, float("nan"), 3, 4], kinds.BOX_NOT_FINITE),
    "box of 1e308": set_value("bbox", [1, 2, 1e308, 1e308], kinds.BOX_NOT_FINITE),
    "flat box": set_value("bbox", [1, 2, 30, 0], kinds.BOX_WITHOUT_AREA),
    "box over the edge": set_value("bbox", [60, 2, 30, 10], kinds.BOX_OUTSIDE),
    "box elsewhere": set_value("bbox", [100, 2, 30, 10], kinds.BOX_OUTSIDE, kinds.BOX_WITHOUT_AREA),
    "negative area": set_value("area", -4, kinds.BAD_AREA),
    "no area in training": set_value("area", 0, kinds.BAD_AREA, file=TRAIN),
    "crowd of two": set_value("iscrowd", 2, kinds.BAD_CROWD),
    "crowd in words": set_value("iscrowd", "no", kinds.BAD_CROWD),
    "no segmentation": set_value("segmentation", None, kinds.NO_SEGMENTATION),
    "no polygon": set_value("segmentation", [], kinds.NO_SEGMENTATION),
    "polygon of two points": set_value(
        "segmentation", [[1, 2, 3, 4]], kinds.MALFORMED_SEGMENTATION
    ),
    "run lengths too short": set_value(
        "segmentation", {"size": [64, 80], "counts": [64, 80]}, kinds.MALFORMED_SEGMENTATION
    ),
    "run lengths cut": set_value(
        "segmentation", {"size": [64, 80], "counts": "abc"}, kinds.MALFORMED_SEGMENTATION
    ),
    "run lengths of another size": set_value(
        "segmentation", {"size": [80, 64], "counts": [5120]}, kinds.OTHER_SEGMENTATION_SIZE
    ),
    "run lengths of an exabyte": set_value(
        "segmentation", {"size": [10**9, 10**9], "counts": [10**18]}, kinds.OTHER_SEGMENTATION_SIZE
    ),
    "no annotations": edit(lambda d: d["annotations"].clear(), (kinds.NOTHING_USABLE, "")),
}


def _name_image(root: Path, name: str) -> Found:
    edit(lambda d: d["images"].append(d["images"][1] | {"id": 9, "file_name": name}))(root)
    return {(kinds.FILE_MISSING.name, f"val2017/{name}")}


# ADE20K's masks, in the tree of `ade20k_tree`: three classes.

ADE_IMAGE = "images/validation/ADE_val_00000002.jpg"
ADE_MASK = "annotations/validation/ADE_val_00000002.png"


def paint(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Change the values of a mask."""

    def apply(path: Path) -> None:
        Image.fromarray(change(np.array(Image.open(path)))).save(path)

    return apply


ADE20K: dict[str, Plant] = {
    "no mask": leave(ADE_IMAGE, kinds.MASK_MISSING)(
        lambda path: (path.parents[2] / ADE_MASK).unlink()
    ),
    "no image": leave(ADE_MASK, kinds.IMAGE_MISSING)(
        lambda path: (path.parents[2] / ADE_IMAGE).unlink()
    ),
    "empty mask": leave(ADE_MASK, kinds.FILE_EMPTY)(lambda path: path.write_bytes(b"")),
    "cut mask": leave(ADE_MASK, kinds.DAMAGED)(cut),
    "no PNG": leave(ADE_MASK, kinds.NOT_AN_IMAGE)(lambda path: path.write_text("none")),
    "other size": leave(ADE_MASK, kinds.OTHER_MASK_SIZE)(paint(lambda v: v[:-1])),
    "unknown value": leave(ADE_MASK, kinds.UNKNOWN_VALUES)(paint(lambda v: v + 1)),
    "colours": leave(ADE_MASK, kinds.MASK_MODE)(paint(lambda v: np.dstack([v, v, v]))),
    "16 bits": leave(ADE_MASK, kinds.MASK_MODE)(paint(lambda v: v.astype(np.uint16))),
    "only ignored": leave(ADE_MASK, kinds.ONLY_IGNORED)(paint(lambda v: v * 0)),
    "CMYK image": leave(ADE_IMAGE, kinds.CMYK)(lambda path: save_noise(path, (50, 70), "CMYK")),
    "cut image": leave(ADE_IMAGE, kinds.DAMAGED)(cut),
    "other file": leave("images/validation/Thumbs.db", kinds.OTHER_EXTENSION)(
        lambda path: path.write_text("")
    ),
    "no folder": leave("annotations/validation/", kinds.FOLDER_MISSING)(shutil.rmtree),
    "no images": lambda root: _empty_both(root),
}


def _empty_both(root: Path) -> Found:
    for kind in ("images", "annotations"):
        for path in (root / kind / "validation").iterdir():
            path.unlink()
    return {(kinds.NO_IMAGES.name, "images/validation/")}


# ImageNet's folders, in the tree of `imagenet_tree`.

CLASS = "n02084071"
JPEG = f"train/{CLASS}/{CLASS}_2.JPEG"


def clear(path: Path) -> None:
    """Delete what a folder has."""
    for file in path.iterdir():
        file.unlink()


IMAGENET: dict[str, Plant] = {
    "empty class": leave(f"train/{CLASS}/", kinds.EMPTY_CLASS)(clear),
    "not in training": leave(f"val/{CLASS}/", kinds.CLASS_NOT_IN_TRAIN)(
        lambda path: shutil.rmtree(path.parents[1] / "train" / CLASS)
    ),
    "not in validation": leave(f"train/{CLASS}/", kinds.CLASS_NOT_IN_VAL)(
        lambda path: shutil.rmtree(path.parents[1] / "val" / CLASS)
    ),
    "outside": leave("train/stray.JPEG", kinds.OUTSIDE_CLASS)(lambda p: save_noise(p, (40, 40))),
    "other file": leave(f"train/{CLASS}/notes.txt", kinds.OTHER_EXTENSION)(
        lambda path: path.write_text("notes")
    ),
    "empty": leave(JPEG, kinds.FILE_EMPTY)(lambda path: path.write_bytes(b"")),
    "truncated": leave(JPEG, kinds.DAMAGED)(cut),
    "text": leave(JPEG, kinds.NOT_AN_IMAGE)(lambda path: path.write_text("none")),
    "CMYK": leave(JPEG, kinds.CMYK)(lambda path: save_noise(path, (40, 40), "CMYK")),
    "PNG": leave(JPEG, kinds.OTHER_FORMAT)(lambda path: save_noise(path, (40, 40), format="PNG")),
    "no split": leave("val/", kinds.FOLDER_MISSING)(shutil.rmtree),
    "no truth": lambda root: _flatten(root),
}


def _flatten(root: Path) -> Found:
    """The validation images in one folder, without their truth."""
    for path in sorted((root / "val").glob("*/*")):
        path.rename(root / "val" / path.name)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return {(kinds.NOT_READABLE.name, "val/")}
