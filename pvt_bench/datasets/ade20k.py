"""ADE20K for scene parsing (Zhou et al. 2017, arXiv:1608.05442), or any data in its format."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pvt_bench.datasets import scene_augmentation as augment
from pvt_bench.datasets.fingerprints import fingerprint
from pvt_bench.datasets.images import (
    opened,
    read_image,
    resize_image,
    resize_segments,
    resized_size,
)
from pvt_bench.datasets.trees import check_tree, find_root
from pvt_bench.datasets.views import View, Views, find_split
from pvt_bench.errors import InputError

SPLITS = {"train": "training", "val": "validation"}
SUFFIXES = (".jpg", ".jpeg", ".png")
NAMES = "objectInfo150.txt"
CLASSES = 150  # where there is no file of names
IGNORED = 255
TREE = """
  images/training/*.jpg
  images/validation/*.jpg
  annotations/training/*.png
  annotations/validation/*.png
  objectInfo150.txt (the names of the classes; may be absent)"""


@dataclass(frozen=True)
class Resizing:
    """How images become what a network sees.

    The shorter side is resized to `shorter_side` pixels, the longer to at most `longer_side`
    (None: as they are); in training times a number drawn from `resize_range`, and then `crop` by
    `crop` pixels are cut out, of which no class has more than `cat_max_ratio` if that can be had.
    For the test both sides are rounded up to multiples of `align`.
    """

    shorter_side: int | None
    longer_side: int | None
    resize_range: tuple[float, float]
    crop: int
    cat_max_ratio: float
    align: int

    def draw_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) to which an image is resized this time, in training."""
        factor = random.uniform(*self.resize_range)
        sides = [side and int(side * factor) for side in (self.shorter_side, self.longer_side)]
        return resized_size(height, width, *sides)

    def test_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) to which an image is resized for the test."""
        height, width = resized_size(height, width, self.shorter_side, self.longer_side)
        return -(-height // self.align) * self.align, -(-width // self.align) * self.align


class ADE20K(Views):
    """A folder in the layout of ADEChallengeData2016; `root` None is $PVT_BENCH_DATA/ade20k.

    Training and test are MMSegmentation's for Semantic FPN, with the sizes of PVT's test (arXiv
    2102.12122, section 5.3, and its align_resize.py). `flip` is the probability of a horizontal
    flip, `photometric_distortion` changes brightness, contrast and colours; see `Resizing` for
    the other options and `View` for `on_damaged`.
    """

    def __init__(
        self,
        name: str,
        root: str | None,
        shorter_side: int | None,
        longer_side: int | None,
        resize_range: tuple[float, float],
        crop: int,
        cat_max_ratio: float,
        align: int,
        flip: float,
        photometric_distortion: bool,
        on_damaged: str = "error",
    ) -> None:
        self.name = name
        self.root = find_root(name, root)
        self.resizing = Resizing(
            shorter_side, longer_side, resize_range, crop, cat_max_ratio, align
        )
        self.flip = flip
        self.photometric_distortion = photometric_distortion
        self.on_damaged = on_damaged
        needed = [
            f"{kind}/{split}" for kind in ("images", "annotations") for split in SPLITS.values()
        ]
        check_tree(name, "ADE20K", self.root, needed, TREE)

    def segmentation(self, split: str) -> "ADE20KSegmentation":
        """The images of "train" or "val" with a label for each pixel."""
        return ADE20KSegmentation(
            self.root,
            find_split(split, SPLITS),
            self.resizing,
            self.flip,
            self.photometric_distortion,
            self.on_damaged,
            training=split == "train",
        )


class ADE20KSegmentation(View):
    """Images with `segments` (H, W) uint8 in the target: labels from 0, and 255 for ignored pixels.

    In training `segments` has the size of the image; otherwise it is the file's own, to which
    predictions are resized. Labels are the file's values less one; its 0 is ignored. Images are
    in the order of their names and `image_id` counts from 1, as in the official names.
    `fingerprint` covers the names of images and classes, and the content of all files.
    """

    former_covers_images = True

    def __init__(
        self,
        root: Path,
        split: str,
        resizing: Resizing,
        flip: float,
        photometric_distortion: bool,
        on_damaged: str,
        training: bool,
    ) -> None:
        self.image_files, self.segment_files = _pair(
            root / "images" / split, root / "annotations" / split
        )
        super().__init__(len(self.image_files), on_damaged, training)
        self.training = training
        self.class_names = class_names(root)
        self.resizing = resizing
        self.flip = flip
        self.photometric_distortion = photometric_distortion
        files = self.image_files + self.segment_files
        self.former_fingerprint = _names_and_sizes(self.class_names, files)
        names = [str(path.relative_to(root)) for path in files]
        labels = hashlib.sha256("\n".join([*self.class_names, *names]).encode()).hexdigest()
        self.fingerprint = fingerprint(labels, root, names, None)
        self.dropped: dict[str, int] = {}

    def load(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """One image and its segments."""
        image = read_image(self.image_files[index])
        segments = read_segments(self.segment_files[index], self.num_classes)
        height, width = segments.shape
        if image.shape[-2:] != segments.shape:
            raise InputError(
                f"{self.image_files[index]} has {image.shape[-1]} x {image.shape[-2]} pixels, but "
                f"{self.segment_files[index]} has {width} x {height}: they do not belong together."
            )
        if self.training:
            image, segments = self._augment(image, segments)
        else:
            image = resize_image(image, self.resizing.test_size(height, width))
        return image, {
            "segments": segments,
            "image_id": torch.tensor(index + 1),
            "size": torch.tensor([height, width]),
        }

    def _augment(self, image: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        height, width = segments.shape
        size = self.resizing.draw_size(height, width)
        resized, segments = resize_image(image, size), resize_segments(segments, size)
        side, share = self.resizing.crop, self.resizing.cat_max_ratio
        place = augment.draw_crop(segments, side, share, IGNORED)
        image, segments = augment.crop(resized, place), augment.crop(segments, place)
        if random.random() < self.flip:
            image, segments = image.flip(-1), segments.flip(-1)
        if self.photometric_distortion:
            image = augment.distort_colours(image)
        return augment.pad(image, segments, side, IGNORED)


def read_segments(path: Path, num_classes: int) -> Tensor:
    """Read a PNG of labels as uint8 (H, W): its 1 to `num_classes` from 0, its 0 as ignored."""
    with opened(path) as image:
        values: NDArray[np.uint8] = np.array(image)
    if values.ndim != 2 or values.dtype != np.uint8:
        raise InputError(
            f"{path} is no image of labels: expected one value of 8 bits a pixel, as in "
            f"ADEChallengeData2016; it has the mode {image.mode}."
        )
    labels = np.full(256, IGNORED, np.uint8)
    labels[1 : num_classes + 1] = np.arange(num_classes)
    highest = int(np.max(values, where=values != IGNORED, initial=0))
    if highest > num_classes:
        raise InputError(
            f"{path} has the value {highest}. Expected 1 to {num_classes}, and 0 or {IGNORED} "
            "where pixels are ignored."
        )
    return torch.from_numpy(labels[values])


def class_names(root: Path) -> list[str]:
    """The first name of each class of the tree, or numbers where it has no file of them."""
    file = root / NAMES
    if not file.exists():
        return [f"class {number}" for number in range(1, CLASSES + 1)]
    lines = [line for line in file.read_text().splitlines() if line.strip()]
    return [line.split("\t")[-1].split(",")[0].strip() for line in lines[1:]]


def _pair(images: Path, annotations: Path) -> tuple[list[Path], list[Path]]:
    """The images of a folder, by name, and the annotations that belong to them."""
    found = {path.stem: path for path in images.iterdir() if path.suffix.lower() in SUFFIXES}
    labelled = {path.stem: path for path in annotations.iterdir() if path.suffix == ".png"}
    if not found:
        raise InputError(
            f"There are no images in {images}. Expected in the dataset's folder:{TREE}"
        )
    for own, other, folder in ((found, labelled, annotations), (labelled, found, images)):
        missing = sorted(set(own) - set(other))
        if missing:
            raise InputError(
                f"{len(missing)} of {len(own)} files are missing in {folder}: those for "
                f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}. "
                "Unpack the archive again."
            )
    stems = sorted(found)
    return [found[stem] for stem in stems], [labelled[stem] for stem in stems]


def _names_and_sizes(names: list[str], files: list[Path]) -> str:
    digest = hashlib.sha256("\n".join(names).encode())
    for path in files:
        digest.update(f"\n{path.name} {path.stat().st_size}".encode())
    return digest.hexdigest()
