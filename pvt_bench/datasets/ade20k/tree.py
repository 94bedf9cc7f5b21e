"""ADE20K's layout, and what is wrong with a folder in it."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar
from unicodedata import normalize

from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.files import Survey, list_sizes
from pvt_bench.datasets.faults.images import Job
from pvt_bench.datasets.faults.kinds import Fault
from pvt_bench.datasets.folders import ImageFolder, read_text
from pvt_bench.datasets.image_files import is_image

MASKS = (".png", ".bmp", ".tif", ".tiff")  # lossless: a JPEG changes labels
NAMES = "objectInfo150.txt"
CLASSES = 150  # where there is no file of names
IGNORED = 255
TREE = """
  images/training/*.jpg
  images/validation/*.jpg
  annotations/training/*.png
  annotations/validation/*.png
  objectInfo150.txt (the names of the classes; may be absent)"""


class ADE20KTree(ImageFolder):
    """A folder with images, and masks of their names, as in ADEChallengeData2016."""

    TITLE, TREE = "ADE20K", TREE
    SPLITS: ClassVar = {"train": "training", "val": "validation"}
    FOLDERS = ("images", "annotations")
    NEEDED = (
        *("images/training", "images/validation"),
        *("annotations/training", "annotations/validation"),
    )

    def quick_faults(self, split: str) -> list[Fault]:
        """What the survey finds."""
        self.check_layout()
        return self.survey_split(split).faults

    def survey_split(self, split: str) -> Survey:
        """Every fault of a split outside its images and masks, and the pairs to read."""
        found = Survey(classes=class_names(self.root))
        folders = [f"{folder}/{self.SPLITS[split]}" for folder in self.FOLDERS]
        missing = [folder for folder in folders if not (self.root / folder).is_dir()]
        if missing:
            found.faults += [Fault(kinds.FOLDER_MISSING, f"{folder}/") for folder in missing]
            return found
        images = self._by_stem(found, folders[0], is_image)
        masks = self._by_stem(found, folders[1], is_mask)
        for stem, name in images.items():
            if stem not in masks:
                found.faults.append(Fault(kinds.MASK_MISSING, name))
            elif self._has_content(found, name) & self._has_content(found, masks[stem]):
                job = Job(
                    self.root,
                    name,
                    mask=masks[stem],
                    num_classes=len(found.classes),
                    upright=self.upright,
                    bits=self.bits,
                )
                found.jobs.append(job)
        alone = [name for stem, name in masks.items() if stem not in images]
        found.faults += [Fault(kinds.IMAGE_MISSING, name) for name in alone]
        if not images:
            found.faults.append(Fault(kinds.NO_IMAGES, f"{folders[0]}/"))
        return found

    def _by_stem(self, found: Survey, folder: str, fits: Callable[[str], bool]) -> dict[str, str]:
        """The files of a folder that the reader takes, by the name without its extension."""
        files: dict[str, str] = {}
        for name in sorted(list_sizes(self.root / folder)):
            if fits(name):
                files[normalize("NFC", Path(name).stem)] = f"{folder}/{name}"
            else:
                found.faults.append(Fault(kinds.OTHER_EXTENSION, f"{folder}/{name}"))
        return files

    def _has_content(self, found: Survey, name: str) -> bool:
        if (self.root / name).stat().st_size:
            return True
        found.faults.append(Fault(kinds.FILE_EMPTY, name))
        return False


def class_names(root: Path) -> list[str]:
    """The first name of each class of the tree, or numbers where it has no file of them."""
    file = root / NAMES
    if not file.exists():
        return [f"class {number}" for number in range(1, CLASSES + 1)]
    lines = [line for line in read_text(file).splitlines() if line.strip()]
    return [line.split("\t")[-1].split(",")[0].strip() for line in lines[1:]]


def is_mask(name: str) -> bool:
    """Whether a file can be an image of labels, by its name."""
    return is_image(name) and name.lower().endswith(MASKS)
