"""ImageNet's layout, and what is wrong with a folder in it."""

from typing import ClassVar

import numpy as np

from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.files import Survey, check_listed, list_sizes
from pvt_bench.datasets.faults.images import Job
from pvt_bench.datasets.faults.kinds import Fault
from pvt_bench.datasets.folders import ImageFolder
from pvt_bench.datasets.image_files import is_image
from pvt_bench.datasets.imagenet.files import TREE, class_folders, list_files
from pvt_bench.errors import InputError


class ImageNetTree(ImageFolder):
    """A folder with a folder of images for each class, in each split."""

    TITLE, TREE = "ImageNet", TREE
    NEEDED, FOLDERS = ("val",), ("train", "val")
    SPLITS: ClassVar = {"train": "train", "val": "val"}

    def quick_faults(self, split: str) -> list[Fault]:
        """Empty files, and classes without images.

        They come from the reader's own list of files, which the index keeps: a file that lost its
        content since is found when it is read.

        Raises:
            InputError: what the reader refuses.
        """
        folder = self.root / split
        if not folder.is_dir():
            return [Fault(kinds.FOLDER_MISSING, f"{split}/")]
        files = list_files(self, split, self.index)
        faults = [Fault(kinds.FILE_EMPTY, f"{split}/{files.path(place)}") for place in files.empty]
        filled = {files.wnids[label] for label in np.unique(files.labels)}
        empty = [wnid for wnid in class_folders(folder) if wnid not in filled]
        return faults + [Fault(kinds.EMPTY_CLASS, f"{split}/{wnid}/") for wnid in empty]

    def survey_split(self, split: str) -> Survey:
        """Every fault of a split outside its images, and the images to read."""
        folder = self.root / split
        if not folder.is_dir():
            return Survey([Fault(kinds.FOLDER_MISSING, f"{split}/")])
        found = Survey(classes=class_folders(folder))
        if not found.classes:
            return self._survey_flat(split)
        for wnid in found.classes:
            self._add_class(found, f"{split}/{wnid}")
        outside = sorted(list_sizes(folder))
        found.faults += [Fault(kinds.OUTSIDE_CLASS, f"{split}/{name}") for name in outside]
        if not found.jobs:
            found.faults.append(Fault(kinds.NO_IMAGES, f"{split}/"))
        return found

    def compare_classes(self, train: Survey, val: Survey) -> list[Fault]:
        """The classes that only one split has."""
        if not train.classes or not val.classes:
            return []
        unknown = sorted(set(val.classes) - set(train.classes))
        unscored = sorted(set(train.classes) - set(val.classes))
        return [Fault(kinds.CLASS_NOT_IN_TRAIN, f"val/{wnid}/") for wnid in unknown] + [
            Fault(kinds.CLASS_NOT_IN_VAL, f"train/{wnid}/") for wnid in unscored
        ]

    def _add_class(self, found: Survey, folder: str) -> None:
        sizes = list_sizes(self.root / folder)
        images = sorted(name for name in sizes if is_image(name))
        if not images:
            found.faults.append(Fault(kinds.EMPTY_CLASS, f"{folder}/"))
        for name in sorted(sizes.keys() - set(images)):
            found.faults.append(Fault(kinds.OTHER_EXTENSION, f"{folder}/{name}"))
        for name in images:
            if sizes[name]:
                found.jobs.append(Job(self.root, f"{folder}/{name}", bits=self.bits))
            else:
                found.faults.append(Fault(kinds.FILE_EMPTY, f"{folder}/{name}"))

    def _survey_flat(self, split: str) -> Survey:
        """The validation images in one folder, as they come, with their truth beside it."""
        try:
            files = list_files(self, split, index=None)
        except InputError as error:
            return Survey([Fault(kinds.NOT_READABLE, f"{split}/", str(error))])
        faults, readable = check_listed(self.root, split, files.paths())
        jobs = [Job(self.root, f"{split}/{name}", bits=self.bits) for name in readable]
        return Survey(faults, jobs, files.wnids)
