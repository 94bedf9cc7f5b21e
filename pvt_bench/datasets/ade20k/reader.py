"""ADE20K for scene parsing (Zhou et al. 2017, arXiv:1608.05442), or any data in its format."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pvt_bench.datasets.ade20k import augmentation as augment
from pvt_bench.datasets.ade20k.tree import IGNORED, MASKS, ADE20KTree, class_names, is_mask
from pvt_bench.datasets.fingerprints import THREADS, fingerprint, stat_digest
from pvt_bench.datasets.image_files import ending, is_image, open_file, opened
from pvt_bench.datasets.images import read_image, resize_image, resize_segments, resized_size
from pvt_bench.datasets.index import Index, load_index
from pvt_bench.datasets.views import View
from pvt_bench.errors import InputError
from pvt_bench.screen import progress_bar

FEW = 2_000  # masks that are read in a moment: neither said nor kept


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


class ADE20K(ADE20KTree):
    """A folder in ADE20K's layout; for the options of all layouts see `ImageFolder`.

    Training and test are MMSegmentation's for Semantic FPN, with the sizes of PVT's test (arXiv
    2102.12122, section 5.3, and its align_resize.py).

    shorter_side: pixels of the shorter side after resizing; null keeps the size.
    longer_side: most pixels of the longer side.
    resize_range: smallest and largest factor on both sides in training, of which one is drawn.
    crop: side in pixels of the square that training cuts out.
    cat_max_ratio: largest share of one class in that square, if it can be had.
    align: the test rounds both sides up to multiples of it.
    flip: probability of a horizontal flip in training.
    photometric_distortion: whether training changes brightness, contrast and colours.
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
        index: str | None = None,
        exif: str = "apply",
        bits: int | None = None,
    ) -> None:
        super().__init__(name, root, index, on_damaged, exif, bits)
        self.resizing = Resizing(
            shorter_side, longer_side, resize_range, crop, cat_max_ratio, align
        )
        self.flip = flip
        self.photometric_distortion = photometric_distortion

    def segmentation(self, split: str) -> "ADE20KSegmentation":
        """The images of "train" or "val" with a label for each pixel."""
        self.check_layout()
        return ADE20KSegmentation(self, split)


class ADE20KSegmentation(View):
    """Images with `segments` (H, W) uint8 in the target: labels from 0, and 255 for ignored pixels.

    In training `segments` has the size of the image; otherwise it is the file's own, to which
    predictions are resized. Labels are the file's values less one; its 0 is ignored. Images are
    in the order of their names and `image_id` counts from 1, as in the official names.
    `fingerprint` covers the names of images and classes, and the content of all files.
    """

    former_covers_images = True

    def __init__(self, tree: ADE20K, split: str) -> None:
        root, folder = tree.root, tree.folder_of(split)
        self.image_files, self.segment_files, self.left_out = _pair(
            root / "images" / folder, root / "annotations" / folder
        )
        self.training = split == "train"
        super().__init__(len(self.image_files), tree.on_damaged, self.training)
        self.upright = tree.upright
        self.bits = tree.bits
        self.class_names = class_names(root)
        self.resizing = tree.resizing
        self.flip = tree.flip
        self.photometric_distortion = tree.photometric_distortion
        files = self.image_files + self.segment_files
        self.former_fingerprint = _names_and_sizes(self.class_names, files)
        names = [str(path.relative_to(root)) for path in files]
        labels = hashlib.sha256("\n".join([*self.class_names, *names]).encode()).hexdigest()
        self.fingerprint = fingerprint(labels, root, names, tree.index)
        pixels = count_values(root, names[len(self.image_files) :], tree.index)
        check_labels(root / "annotations" / folder, pixels, self.num_classes)
        of_class = pixels[1 : self.num_classes + 1]
        self.unseen = tuple(np.array(self.class_names, object)[of_class == 0])

    def load(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """One image and its segments."""
        image = read_image(self.image_files[index], self.upright, self.bits)
        segments = read_segments(self.segment_files[index], self.num_classes)
        height, width = segments.shape
        if image.shape[-2:] != segments.shape:
            other = "ignore" if self.upright else "apply"
            swapped = image.shape[-2:] == (width, height)
            raise InputError(
                f"{self.image_files[index]} has {image.shape[-1]} x {image.shape[-2]} pixels, but "
                f"{self.segment_files[index]} has {width} x {height}: they do not belong together."
                + f" If EXIF turns the image, use dataset.exif={other}."
                * swapped
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


def count_values(root: Path, masks: list[str], index: Path | None) -> NDArray[np.int64]:
    """The pixels (256,) of each value in `masks`, files below `root`; kept in `index`."""

    def read() -> Index:
        with (
            ThreadPoolExecutor(THREADS) as pool,
            progress_bar("counting labels", len(masks)) as bar,
        ):
            total = np.zeros(256, np.int64)
            for counts in pool.map(lambda name: _count(root / name), masks):
                total += counts
                bar.advance()
        return Index({"pixels": total}, {})

    if len(masks) < FEW:
        return sum((_count(root / name) for name in masks), np.zeros(256, np.int64))
    stamp = {"masks": stat_digest(root, masks)}
    return load_index(index, root / Path(masks[0]).parent, stamp, read, "pixels").arrays["pixels"]


def _count(path: Path) -> NDArray[np.int64]:
    """The pixels (256,) of each value of a mask; none of one that is told when it is read."""
    try:
        with open_file(path) as image:
            values = np.asarray(image)
    except Exception:  # Pillow's decoders raise whatever they stumble upon
        return np.zeros(256, np.int64)
    fits = values.ndim == 2 and values.dtype == np.uint8
    return np.bincount(values.ravel() if fits else [], minlength=256)


def check_labels(folder: Path, pixels: NDArray[np.int64], num_classes: int) -> None:
    """Refuse masks in which there is nothing to tell apart; pixels (256,) of each value.

    Raises:
        InputError: fewer than two classes have a pixel.
    """
    present = np.flatnonzero(pixels[1 : min(num_classes, IGNORED - 1) + 1]) + 1
    if len(present) > 1 or not pixels.any():
        return
    found = ", ".join(map(str, np.flatnonzero(pixels).tolist()[:10]))
    what = f"the pixels of one class only, {present[0]}" if len(present) else "no pixel of a class"
    raise InputError(
        f"The masks in {folder} have {what}, and nothing can be learnt. Their values are {found}. "
        f"Expected 1 to {num_classes} for the classes; 0 and {IGNORED} are ignored. Masks of 0 and "
        "1, or of 0 and 255, have to be written anew with 1 for the ground and 2 for the object, "
        "and objectInfo150.txt with their names."
    )


def _pair(images: Path, annotations: Path) -> tuple[list[Path], list[Path], dict[str, int]]:
    """The images of a folder, by name, the masks that belong to them, and a count of the others."""
    left_out: Counter[str] = Counter()
    found = _by_stem(images, is_image, left_out)
    labelled = _by_stem(annotations, is_mask, left_out)
    if not found:
        raise InputError(
            f"There are no images in {images}. Expected in the dataset's folder:{ADE20KTree.TREE}"
        )
    for own, other, folder in ((found, labelled, annotations), (labelled, found, images)):
        missing = sorted(set(own) - set(other))
        if missing:
            raise InputError(
                f"{len(missing)} of {len(own)} files are missing in {folder}: those for "
                f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}. Expected an image "
                f"and a mask ({', '.join(MASKS)}) of each name."
            )
    stems = sorted(found)
    return [found[stem] for stem in stems], [labelled[stem] for stem in stems], dict(left_out)


def _by_stem(folder: Path, fits: Callable[[str], bool], left_out: Counter[str]) -> dict[str, Path]:
    """The files of a folder by name without its end, with accents composed as some systems do."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not fits(path.name):
            left_out[ending(path.name)] += 1
            continue
        stem = normalize("NFC", path.stem)
        if stem in files:
            raise InputError(
                f"{files[stem]} and {path} have one name but for its end, and only one can belong "
                "to the other half of the pair. Remove one of them."
            )
        files[stem] = path
    return files


def _names_and_sizes(names: list[str], files: list[Path]) -> str:
    digest = hashlib.sha256("\n".join(names).encode())
    for path in files:
        digest.update(f"\n{path.name} {path.stat().st_size}".encode())
    return digest.hexdigest()
