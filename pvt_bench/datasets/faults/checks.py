"""Whether a dataset is whole: all that is wrong with it, or in a moment what is seen from outside.

Readers stop at the first fault they meet; here all are found. The kinds are in `kinds`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pvt_bench.datasets.ade20k import faults as ade20k_faults
from pvt_bench.datasets.coco import faults as coco_faults
from pvt_bench.datasets.digits.reader import Digits
from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.files import Survey
from pvt_bench.datasets.faults.kinds import Fault, check
from pvt_bench.datasets.imagenet import faults as imagenet_faults
from pvt_bench.datasets.views import Views

# The module that knows the layout in which a view's files lie, and where `Digits` has them.
LAYOUTS: dict[str, tuple[Any, str]] = {
    "classification": (imagenet_faults, "imagenet"),
    "detection": (coco_faults, "."),
    "segmentation": (ade20k_faults, "ade20k"),
}
SKIPPABLE = {
    kind.name
    for kind in (
        kinds.FILE_EMPTY,
        kinds.DAMAGED,
        kinds.NOT_AN_IMAGE,
        kinds.NOT_DECODED,
        kinds.HUGE,
    )
}


def quick_check(dataset: Views, view: str, split: str, **options: Any) -> None:
    """Check what can be seen without reading all images, before a run begins.

    options: of the view, such as `masks`.

    Raises:
        InputError: names the first faults of severity "error".
    """
    root: Path = dataset.root  # type: ignore[attr-defined]
    index: Path | None = getattr(dataset, "index", None)
    tree = find_tree(type(dataset), dataset.name, root, view)
    options["upright"] = getattr(dataset, "upright", True)
    faults = LAYOUTS[view][0].quick_faults(tree, split, index, **options)
    check(forgive(faults, split, getattr(dataset, "on_damaged", "error")))


def survey(tree: Path, view: str, splits: Iterable[str], options: Any) -> dict[str, Survey]:
    """What is wrong with each split before its images are read, and which images are to be read.

    tree: of `find_tree`; options: of the view, such as `masks`.
    """
    layout = LAYOUTS[view][0]
    surveys = {split: layout.survey(tree, split, **options) for split in splits}
    if len(surveys) == 2:
        surveys["val"].faults += layout.compare_classes(surveys["train"], surveys["val"])
    return surveys


def find_tree(dataset_class: type[Views], name: str, root: Path, view: str) -> Path:
    """The folder with the files of a view.

    Raises:
        InputError: such datasets have no such view.
    """
    if getattr(dataset_class, view) is getattr(Views, view):
        refusing = Views()
        refusing.name = name
        getattr(refusing, view)("val")
    return root / LAYOUTS[view][1] if issubclass(dataset_class, Digits) else root


def forgive(faults: Iterable[Fault], split: str, on_damaged: str) -> Iterator[Fault]:
    """The faults, with damaged images as notes where `dataset.on_damaged` has them skipped."""
    for fault in faults:
        if split == "train" and on_damaged == "skip" and fault.kind.name in SKIPPABLE:
            kind = fault.kind.as_note("The next whole image takes its place (on_damaged=skip).")
            yield Fault(kind, fault.where, fault.detail)
        else:
            yield fault
