"""What is wrong with a tree in COCO's layout."""

from pathlib import Path

from pvt_bench.datasets import fault_kinds as kinds
from pvt_bench.datasets.annotation_faults import Document, read_document
from pvt_bench.datasets.coco import SPLITS
from pvt_bench.datasets.fault_kinds import Fault, as_unread, check
from pvt_bench.datasets.file_faults import Survey, check_listed
from pvt_bench.datasets.fingerprints import file_stamp
from pvt_bench.datasets.image_faults import Job
from pvt_bench.datasets.index import Index, load_index
from pvt_bench.datasets.outline_faults import segmentation_faults

FOLDERS = ("annotations", *SPLITS.values())


def survey(root: Path, split: str, masks: bool = False) -> Survey:
    """Everything wrong with a split but what lies within its images.

    Without `masks` the faults of segmentations are notes.
    """
    document = read_document(root, _annotation_file(split), split == "train")
    faults = [*document.faults, *segmentation_faults(document, masks)]
    sizes = document.read_files() | document.unread_files()
    missing, readable = check_listed(root, SPLITS[split], sizes)
    unread = {f"{SPLITS[split]}/{name}" for name in document.unread_files()}
    for fault in missing:
        faults += as_unread([fault]) if fault.where in unread else [fault]
    jobs = [
        Job(root, path, size=sizes[name], unread=path in unread)
        for name in sorted(readable)
        for path in [f"{SPLITS[split]}/{name}"]
    ]
    return Survey(faults, jobs, _classes(document))


def quick_faults(root: Path, split: str, index: Path | None) -> list[Fault]:
    """Images that are missing or empty.

    The annotation file is read anew only where it has changed since it was found to be without
    errors; that is kept in the folder `index`.

    Raises:
        InputError: an error in the annotation file, or other categories in training.
    """
    facts = _checked(root, split, index)
    if split == "train" and (root / _annotation_file("val")).exists():
        val = Survey(classes=_checked(root, "val", index)["classes"])
        check(compare_classes(Survey(classes=facts["classes"]), val))
    return check_listed(root, SPLITS[split], facts["files"])[0]


def compare_classes(train: Survey, val: Survey) -> list[Fault]:
    """Where the categories of the two splits differ."""
    if not train.classes or not val.classes or train.classes == val.classes:
        return []
    odd = sorted(set(train.classes) ^ set(val.classes))
    return [Fault(kinds.OTHER_CATEGORIES, _annotation_file("val"), ", ".join(odd[:5]))]


def _checked(root: Path, split: str, index: Path | None) -> dict[str, list[str]]:
    """The image files and the classes of an annotation file without errors."""
    path = root / _annotation_file(split)

    def read() -> Index:
        document = read_document(root, _annotation_file(split), split == "train")
        check(document.faults)
        files = sorted(document.read_files())
        return Index({}, {"files": files, "classes": _classes(document)})

    if not path.exists():
        return read().facts  # which says so
    return load_index(index, path, file_stamp(path), read, variant=f"faults of {split}").facts


def _classes(document: Document) -> list[str]:
    return [f"{number} {name}" for number, name in sorted(document.classes.items())]


def _annotation_file(split: str) -> str:
    return f"annotations/instances_{SPLITS[split]}.json"
