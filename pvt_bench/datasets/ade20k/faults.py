"""What is wrong with a tree in ADE20K's layout."""

from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

from pvt_bench.datasets.ade20k.reader import SPLITS, class_names, is_mask
from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.files import Survey, list_sizes
from pvt_bench.datasets.faults.images import Job
from pvt_bench.datasets.faults.kinds import Fault
from pvt_bench.datasets.image_files import is_image

FOLDERS = ("images", "annotations")


def survey(root: Path, split: str, upright: bool = True, bits: int | None = None) -> Survey:
    """Everything wrong with a split but what lies within its images and masks."""
    folders = f"images/{SPLITS[split]}", f"annotations/{SPLITS[split]}"
    found = Survey(classes=class_names(root))
    for folder in folders:
        if not (root / folder).is_dir():
            found.faults.append(Fault(kinds.FOLDER_MISSING, f"{folder}/"))
    if found.faults:
        return found
    images = _by_stem(found, root, folders[0], is_image)
    masks = _by_stem(found, root, folders[1], is_mask)
    for stem, name in images.items():
        if stem not in masks:
            found.faults.append(Fault(kinds.MASK_MISSING, name))
        elif _has_content(found, root, name) & _has_content(found, root, masks[stem]):
            job = Job(
                root,
                name,
                mask=masks[stem],
                num_classes=len(found.classes),
                upright=upright,
                bits=bits,
            )
            found.jobs.append(job)
    found.faults += [
        Fault(kinds.IMAGE_MISSING, name) for stem, name in masks.items() if stem not in images
    ]
    if not images:
        found.faults.append(Fault(kinds.NO_IMAGES, f"{folders[0]}/"))
    return found


def quick_faults(root: Path, split: str, index: Path | None, upright: bool = True) -> list[Fault]:
    """What `survey` finds."""
    return survey(root, split).faults


def compare_classes(train: Survey, val: Survey) -> list[Fault]:
    """None: both splits have the classes of one file."""
    return []


def _by_stem(found: Survey, root: Path, folder: str, fits: Callable[[str], bool]) -> dict[str, str]:
    """The files of a folder that the reader takes, by the name without its extension."""
    files: dict[str, str] = {}
    for name in sorted(list_sizes(root / folder)):
        if fits(name):
            files[normalize("NFC", Path(name).stem)] = f"{folder}/{name}"
        else:
            found.faults.append(Fault(kinds.OTHER_EXTENSION, f"{folder}/{name}"))
    return files


def _has_content(found: Survey, root: Path, name: str) -> bool:
    if (root / name).stat().st_size:
        return True
    found.faults.append(Fault(kinds.FILE_EMPTY, name))
    return False
