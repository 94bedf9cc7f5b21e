"""What is wrong with a tree in COCO's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pvt_bench.datasets.coco.annotation_faults import Document, Size, read_document
from pvt_bench.datasets.coco.outline_faults import segmentation_faults
from pvt_bench.datasets.coco.reader import SPLITS
from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.files import Survey, check_listed
from pvt_bench.datasets.faults.images import Job, check_size
from pvt_bench.datasets.faults.kinds import Fault, as_unread, check
from pvt_bench.datasets.file_names import find_files
from pvt_bench.datasets.fingerprints import file_stamp
from pvt_bench.datasets.index import Index, load_index

LOOKED_AT = 400  # images whose sizes are compared before a run: a tenth of a second
FOLDERS = ("annotations", *SPLITS.values())


def survey(
    root: Path, split: str, upright: bool = True, bits: int | None = None, masks: bool = False
) -> Survey:
    """Everything wrong with a split but what lies within its images.

    Without `masks` the faults of segmentations are notes. upright, bits: as of `Coco`.
    """
    document = read_document(root, _annotation_file(split), split == "train")
    faults = [*document.faults, *segmentation_faults(document, masks)]
    sizes = _on_disk(root, split, document.read_files() | document.unread_files())
    missing, readable = check_listed(root, SPLITS[split], sizes)
    unread = {f"{SPLITS[split]}/{name}" for name in _on_disk(root, split, document.unread_files())}
    for fault in missing:
        faults += as_unread([fault]) if fault.where in unread else [fault]
    jobs = [
        Job(root, path, size=sizes[name], upright=upright, bits=bits, unread=path in unread)
        for name in sorted(readable)
        for path in [f"{SPLITS[split]}/{name}"]
    ]
    return Survey(faults, jobs, _classes(document), [root / _annotation_file(split)])


def quick_faults(
    root: Path, split: str, index: Path | None, upright: bool = True, masks: bool = False
) -> list[Fault]:
    """Images that are missing, empty, or of another size than the annotation file says.

    The annotation file is read anew only where it has changed since it was found to be without
    errors; that is kept in the folder `index`. Of many images the sizes of some are compared.

    Raises:
        InputError: an error in the annotation file, or other categories in training.
    """
    facts = _checked(root, split, index, masks)
    if split == "train" and (root / _annotation_file("val")).exists():
        val = Survey(classes=_checked(root, "val", index, masks)["classes"])
        check(compare_classes(Survey(classes=facts["classes"]), val))
    sizes = _on_disk(root, split, dict(zip(facts["files"], facts["sizes"], strict=True)))
    faults, readable = check_listed(root, SPLITS[split], sizes)
    for name in readable[:: -(-len(readable) // LOOKED_AT) or 1]:
        faults += check_size(root, f"{SPLITS[split]}/{name}", sizes[name], upright)
    return faults


def _on_disk(root: Path, split: str, sizes: Mapping[str, Size]) -> dict[str, Size]:
    """The sizes of images by the names of their files, which may be spelt in another way."""
    files, _ = find_files(root / SPLITS[split], list(sizes))
    # What the index kept has lists instead of pairs.
    return {name: (size[0], size[1]) for name, size in zip(files, sizes.values(), strict=True)}


def compare_classes(train: Survey, val: Survey) -> list[Fault]:
    """Where the categories of the two splits differ."""
    if not train.classes or not val.classes or train.classes == val.classes:
        return []
    odd = sorted(set(train.classes) ^ set(val.classes))
    return [Fault(kinds.OTHER_CATEGORIES, _annotation_file("val"), ", ".join(odd[:5]))]


def _checked(root: Path, split: str, index: Path | None, masks: bool) -> dict[str, Any]:
    """The image files, their sizes and the classes of an annotation file without errors."""
    path = root / _annotation_file(split)

    def read() -> Index:
        document = read_document(root, _annotation_file(split), split == "train")
        check([*document.faults, *(segmentation_faults(document, masks) if masks else ())])
        sizes = document.read_files()
        facts = {"files": list(sizes), "sizes": list(sizes.values())}
        return Index({}, {**facts, "classes": _classes(document)})

    try:
        stamp = file_stamp(path)
    except OSError:
        return read().facts  # which says so
    return load_index(index, path, stamp, read, variant=f"faults of {split}, masks {masks}").facts


def _classes(document: Document) -> list[str]:
    return [f"{number} {name}" for number, name in sorted(document.classes.items())]


def _annotation_file(split: str) -> str:
    return f"annotations/instances_{SPLITS[split]}.json"
