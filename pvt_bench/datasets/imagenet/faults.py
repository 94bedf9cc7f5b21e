"""What is wrong with a tree in ImageNet's layout."""

from pathlib import Path

import numpy as np

from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.files import Survey, check_listed, list_sizes
from pvt_bench.datasets.faults.images import Job
from pvt_bench.datasets.faults.kinds import Fault
from pvt_bench.datasets.image_files import is_image
from pvt_bench.datasets.imagenet.files import class_folders, list_files
from pvt_bench.errors import InputError

FOLDERS = ("train", "val")


def survey(root: Path, split: str, upright: bool = True, bits: int | None = None) -> Survey:
    """Everything wrong with a split, "train" or "val", but what lies within its images."""
    if not (root / split).is_dir():
        return Survey([Fault(kinds.FOLDER_MISSING, f"{split}/")])
    wnids = class_folders(root / split)
    found = Survey(classes=wnids)
    if not wnids:
        return _survey_flat(root, split, bits)
    for wnid in wnids:
        _add_class(found, root, split, wnid, bits)
    outside = [f"{split}/{name}" for name in sorted(list_sizes(root / split))]
    found.faults += [Fault(kinds.OUTSIDE_CLASS, name) for name in outside]
    if not found.jobs:
        found.faults.append(Fault(kinds.NO_IMAGES, f"{split}/"))
    return found


def quick_faults(root: Path, split: str, index: Path | None, upright: bool = True) -> list[Fault]:
    """Empty files, and classes without images.

    They come from the reader's own list of files, which is kept in the folder `index`: a file that
    lost its content since is found when it is read.

    Raises:
        InputError: what the reader refuses.
    """
    if not (root / split).is_dir():
        return [Fault(kinds.FOLDER_MISSING, f"{split}/")]
    files = list_files("imagenet", root, split, index)
    faults = [Fault(kinds.FILE_EMPTY, f"{split}/{files.path(place)}") for place in files.empty]
    filled = {files.wnids[label] for label in np.unique(files.labels)}
    return faults + [
        Fault(kinds.EMPTY_CLASS, f"{split}/{wnid}/")
        for wnid in class_folders(root / split)
        if wnid not in filled
    ]


def compare_classes(train: Survey, val: Survey) -> list[Fault]:
    """The classes that only one split has."""
    if not train.classes or not val.classes:
        return []
    unknown = sorted(set(val.classes) - set(train.classes))
    unscored = sorted(set(train.classes) - set(val.classes))
    return [Fault(kinds.CLASS_NOT_IN_TRAIN, f"val/{wnid}/") for wnid in unknown] + [
        Fault(kinds.CLASS_NOT_IN_VAL, f"train/{wnid}/") for wnid in unscored
    ]


def _add_class(found: Survey, root: Path, split: str, wnid: str, bits: int | None) -> None:
    sizes = list_sizes(root / split / wnid)
    images = sorted(name for name in sizes if is_image(name))
    place = f"{split}/{wnid}"
    if not images:
        found.faults.append(Fault(kinds.EMPTY_CLASS, f"{place}/"))
    for name in sorted(sizes.keys() - set(images)):
        found.faults.append(Fault(kinds.OTHER_EXTENSION, f"{place}/{name}"))
    for name in images:
        if sizes[name]:
            found.jobs.append(Job(root, f"{place}/{name}", bits=bits))
        else:
            found.faults.append(Fault(kinds.FILE_EMPTY, f"{place}/{name}"))


def _survey_flat(root: Path, split: str, bits: int | None) -> Survey:
    """The validation images in one folder, as they come, with their truth beside it."""
    try:
        files = list_files("imagenet", root, split, index=None)
    except InputError as error:
        return Survey([Fault(kinds.NOT_READABLE, f"{split}/", str(error))])
    names = [files.path(place) for place in range(len(files.labels))]
    faults, readable = check_listed(root, split, names)
    return Survey(
        faults, [Job(root, f"{split}/{name}", bits=bits) for name in readable], files.wnids
    )
