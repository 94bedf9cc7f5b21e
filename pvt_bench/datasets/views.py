"""Base classes of datasets and of their views: classification, detection, segmentation."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from mmap import mmap
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
import yaml
from torch import Tensor
from torch.utils.data import Dataset

from pvt_bench.config.folders import config_dir
from pvt_bench.config.targets import find_target
from pvt_bench.datasets.faults.files import Survey
from pvt_bench.datasets.fingerprints import fingerprint
from pvt_bench.datasets.image_files import DamagedImage
from pvt_bench.errors import InputError, nearest
from pvt_bench.screen import warn

VIEWS = ("classification", "detection", "segmentation")
READ_FIRST = 8  # images before a run begins: tenths of a second
ON_DAMAGED = ("error", "skip")


class Views:
    """Base of the datasets; one has the views whose methods its class defines.

    Its checks are `quick_check`, before a run begins, and `survey`, of the preflight. It may do
    without both.
    """

    name: str
    root: Path  # of its files, where it has a survey
    on_damaged = "error"

    def classification(self, split: str) -> Any:
        """Images with one label each."""
        self._refuse("classification")

    def detection(self, split: str, masks: bool = False) -> Any:
        """Images with boxes and labels, and masks of the objects where asked for."""
        self._refuse("detection")

    def segmentation(self, split: str) -> Any:
        """Images with a label for each pixel."""
        self._refuse("segmentation")

    def reader(self, view: str) -> "Views":
        """The dataset that reads a view: this one, or one in whose layout this one is written.

        Raises:
            InputError: there is no such view.
        """
        if view not in views_of(type(self)):
            self._refuse(view)
        return self

    def quick_check(self, view: str, split: str, **options: Any) -> None:
        """Refuse what would stop a run and shows in a moment; here nothing is checked.

        options: of the view, such as `masks`.

        Raises:
            InputError: names the first faults.
        """

    def survey(self, view: str, splits: Sequence[str], **options: Any) -> dict[str, Survey]:
        """The faults of each split outside its images, and the images to read, for the preflight.

        options: of the view, such as `masks`.
        """
        raise InputError(
            f"dataset={self.name} cannot be checked beforehand: {type(self).__qualname__} defines "
            "no survey. Start the run, which reads some of its images first, or define one as "
            "docs/datasets.md shows."
        )

    def _refuse(self, view: str) -> NoReturn:
        own = ", ".join(views_of(type(self))) or "none"
        others = " or ".join(f"dataset={name}" for name in datasets_with(view))
        raise InputError(f"dataset={self.name} has no {view} view (it has: {own}). Use {others}.")


def views_of(dataset: type[Views]) -> list[str]:
    """The views that a class of datasets has."""
    return [view for view in VIEWS if getattr(dataset, view) is not getattr(Views, view)]


def datasets_with(view: str) -> list[str]:
    """The datasets of conf/ that have a view, those with few views first."""
    found: list[tuple[int, str]] = []
    for path in (config_dir() / "dataset").glob("*.yaml"):
        target = yaml.safe_load(path.read_text())["_target_"]
        views = views_of(find_target("dataset", target))
        if view in views:
            found.append((len(views), path.stem))
    return [name for _, name in sorted(found)]


class View(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Pairs of an image, float32 (3, H, W) in [0, 1], and its target.

    Every target has `image_id` () int64 and `size` (2,) int64, the (height, width) of the image
    in its file. A subclass defines `load`, sets `class_names` in the order of the labels, calls
    this constructor with its length, and defines `sources` or sets `fingerprint`.

    `dropped` counts by reason what was left out, `left_out` files that are not images by how their
    names end; `unseen` are classes of which the view has nothing. `fingerprint` is a SHA-256 of
    what the view is made of, its images' content included; `former_fingerprint` is what it was
    while it did not cover that, None where it always did, and `former_covers_images` tells whether
    it covered their names and sizes.

    on_damaged: "error", or in training "skip": the next whole image takes the place of one that
        cannot be read, and `damaged` (images,) tells which could not, as all loaders' processes
        have found.
    """

    class_names: Sequence[str]
    unseen: tuple[str, ...] = ()
    dropped: Mapping[str, int] = MappingProxyType({})
    left_out: Mapping[str, int] = MappingProxyType({})
    former_fingerprint: str | None = None
    former_covers_images = False

    def __init__(self, length: int, on_damaged: str = "error", training: bool = False) -> None:
        if on_damaged not in ON_DAMAGED:
            raise InputError(
                f"There is no dataset.on_damaged={on_damaged}. {nearest(on_damaged, ON_DAMAGED)}"
            )
        self._length = length
        self.damaged: Tensor | None = None
        if training and on_damaged == "skip":
            self.damaged = _shared_flags(length)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        if index >= len(self):
            raise IndexError(index)
        for step in range(len(self)):
            place = (index + step) % len(self)
            try:
                return self.load(place)
            except DamagedImage as error:
                self._skip(place, error)
        raise InputError("No image of the training can be read.")

    def read_some(self) -> None:
        """Read a few images and targets of the whole, as a training would.

        Raises:
            InputError: what would end a run at its first steps.
        """
        for index in range(0, len(self), -(-len(self) // READ_FIRST)):
            self[index]

    def _skip(self, index: int, error: DamagedImage) -> None:
        """Note and say once that an image is damaged, where that is no error."""
        if self.damaged is None:
            raise InputError(str(error)) from error
        if not self.damaged[index]:
            self.damaged[index] = True
            warn(f"skipped, {int(self.damaged.sum())} so far: {error}")

    def load(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """One image and its target; DamagedImage where the file cannot be read."""
        raise NotImplementedError

    def sources(self) -> Sequence[Path]:
        """The files that the view is read from, labels and images."""
        raise InputError(
            f"{type(self).__qualname__} does not say which files it is made of, and a changed file "
            "would pass for the same data. Define `sources`, or set `fingerprint`."
        )

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the classes, and of the names and the content of the `sources`."""
        files = self.sources()
        root = Path(os.path.commonpath([path.absolute().parent for path in files]))
        names = [str(path.absolute().relative_to(root)) for path in files]
        labels = hashlib.sha256("\n".join([*self.class_names, *names]).encode())
        return fingerprint(labels.hexdigest(), root, names, index=None)


class DetectionView(View):
    """View of boxes, with what their score needs.

    Targets have `boxes` (n, 4) float32 XYXY in pixels of the image that is returned, `labels` (n,)
    int64 and, where there are regions of a crowd, `iscrowd` (n,) bool.
    """

    @cached_property
    def category_ids(self) -> Sequence[int]:
        """The ids of the classes in `ground_truth`, in the order of the labels."""
        return range(1, self.num_classes + 1)

    @cached_property
    def ground_truth(self) -> dict[str, Any]:
        """The boxes in pixels of the files, in the form of COCO's annotation file."""
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for image, target in map(self.__getitem__, range(len(self))):
            number, (height, width) = int(target["image_id"]), target["size"].tolist()
            images.append({"id": number, "height": height, "width": width})
            crowds = target.get("iscrowd", torch.zeros(len(target["boxes"])))
            scale = torch.tensor([width / image.shape[-1], height / image.shape[-2]] * 2)
            columns = (target["boxes"] * scale, target["labels"], crowds)
            for (left, top, right, bottom), label, crowd in zip(
                *(column.tolist() for column in columns), strict=True
            ):
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": number,
                        "category_id": self.category_ids[label],
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": int(crowd),
                    }
                )
        names = zip(self.category_ids, self.class_names, strict=True)
        categories = [{"id": number, "name": name} for number, name in names]
        return {"images": images, "annotations": objects, "categories": categories}


def _shared_flags(length: int) -> Tensor:
    """Flags (length,) bool, none of them set, that this process shares with its readers."""
    try:
        return torch.zeros(length, dtype=torch.bool).share_memory_()
    except RuntimeError:  # /dev/shm is full; processes that are forked off share this, too
        return torch.frombuffer(mmap(-1, length), dtype=torch.bool)


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first names and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
