"""What every dataset answers: classification(), detection() or segmentation(), or why not."""

from collections.abc import Mapping, Sequence
from mmap import mmap
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pvt_bench.datasets.image_files import DamagedImage
from pvt_bench.errors import InputError, nearest
from pvt_bench.screen import warn

OFFERED: dict[str, tuple[str, ...]] = {
    "classification": ("imagenet", "digits"),
    "detection": ("coco", "digits"),
    "segmentation": ("ade20k", "digits"),
}
READ_FIRST = 8  # images before a run begins: tenths of a second
EXIF = ("apply", "ignore")
ON_DAMAGED = ("error", "skip")


class Views:
    """Base of the datasets: each view that a dataset lacks is an error that names who has it."""

    name: str

    def classification(self, split: str) -> Any:
        """Images with one label each."""
        self._refuse("classification")

    def detection(self, split: str, masks: bool = False) -> Any:
        """Images with boxes and labels, and masks of the objects where asked for."""
        self._refuse("detection")

    def segmentation(self, split: str) -> Any:
        """Images with a label for each pixel."""
        self._refuse("segmentation")

    def _refuse(self, view: str) -> NoReturn:
        own = [other for other, names in OFFERED.items() if self.name in names]
        raise InputError(
            f"dataset={self.name} has no {view} view (it has: {', '.join(own) or 'none'}). "
            f"Type dataset={' or dataset='.join(OFFERED[view])}."
        )


class View(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Pairs of an image, float32 (3, H, W) in [0, 1], and its target.

    Every target has `image_id` () int64 and `size` (2,) int64, the (height, width) of the image
    in its file. `class_names` are in the order of the labels, `dropped` counts by reason what was
    left out, `fingerprint` is a SHA-256 of what the view is made of, its images' content included.
    `former_fingerprint` is what it was while it did not cover that; None where it always did.

    on_damaged: "error", or in training "skip": the next whole image takes the place of one that
        cannot be read, and `damaged` (images,) tells which could not, as all loaders' processes
        have found.
    """

    class_names: list[str]
    fingerprint: str
    unseen: tuple[str, ...] = ()  # classes of which the view has nothing
    # Files that are not images, by how their names end.
    left_out: Mapping[str, int] = MappingProxyType({})
    former_fingerprint: str | None = None
    former_covers_images = False  # by their names and sizes
    dropped: dict[str, int]

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


def _shared_flags(length: int) -> Tensor:
    """Flags (length,) bool, none of them set, that this process shares with its readers."""
    try:
        return torch.zeros(length, dtype=torch.bool).share_memory_()
    except RuntimeError:  # /dev/shm is full; processes that are forked off share this, too
        return torch.frombuffer(mmap(-1, length), dtype=torch.bool)


def turns_upright(exif: str) -> bool:
    """What `dataset.exif` says of images whose EXIF orientation is not upright."""
    if exif not in EXIF:
        raise InputError(f"There is no dataset.exif={exif}. {nearest(exif, EXIF)}")
    return exif == "apply"


def check_bits(bits: int | None) -> int | None:
    """Return `dataset.bits`, or refuse it.

    Raises:
        InputError: it is neither null nor a whole number from 8 to 32.
    """
    if bits is not None and (type(bits) is not int or not 8 <= bits <= 32):
        raise InputError(
            f"dataset.bits={bits} must be the bits that images of more than 8 bits use, from 8 to "
            "32. Type for example dataset.bits=12, or dataset.bits=null to go by their values."
        )
    return bits


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first names and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def find_split(split: str, splits: dict[str, str]) -> str:
    """The folder of "train" or "val"."""
    if split not in splits:
        raise InputError(f"There is no split {split!r}. {nearest(split, splits)}")
    return splits[split]
