"""COCO 2017 (Lin et al. 2014, arXiv:1405.0312), or any data in its format, for detection."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as mask_api
from torch import Tensor

from pvt_bench.datasets.coco.annotations import read_annotations
from pvt_bench.datasets.coco.canonical import describe
from pvt_bench.datasets.coco.file_names import find_files, is_inside
from pvt_bench.datasets.coco.tree import CocoTree
from pvt_bench.datasets.faults.files import is_file
from pvt_bench.datasets.faults.kinds import SHOWN
from pvt_bench.datasets.fingerprints import fingerprint
from pvt_bench.datasets.images import read_image, resize_image, resize_masks, resized_size
from pvt_bench.datasets.views import DetectionView, some_of
from pvt_bench.errors import InputError
from pvt_bench.screen import say


class Coco(CocoTree):
    """A folder in COCO's layout; for the options of all layouts see `ImageFolder`.

    shorter_side: pixels of the shorter side after resizing; null keeps the size, and of several
        numbers training draws one and the test takes the last.
    longer_side: most pixels of the longer side.
    flip: probability of a horizontal flip in training.
    """

    def __init__(
        self,
        name: str,
        root: str | None,
        shorter_side: int | Sequence[int] | None,
        longer_side: int | None,
        flip: float,
        index: str | None = None,
        on_damaged: str = "error",
        exif: str = "apply",
        bits: int | None = None,
    ) -> None:
        super().__init__(name, root, index, on_damaged, exif, bits)
        self.shorter_sides: Sequence[int | None] = (
            shorter_side if isinstance(shorter_side, Sequence) else [shorter_side]
        )
        self.longer_side = longer_side
        self.flip = flip

    def detection(self, split: str, masks: bool = False) -> "CocoDetection":
        """The images of "train" or "val" with boxes and labels, and with masks if asked for."""
        self.check_layout()
        return CocoDetection(self, split, masks)


class CocoDetection(DetectionView):
    """Images with the objects of an annotation file.

    The target has `boxes` (n, 4) float32 XYXY in pixels of the image, `labels` (n,) int64 from 0,
    `iscrowd` (n,) bool, and `masks` (n, H, W) bool if asked for; in the pixels of its `size`
    detections are scored. `category_ids` are the file's, in the order of the labels.

    `training` leaves out crowd regions and then images without a box. `fingerprint` covers the
    annotation file and the images.
    """

    def __init__(self, tree: Coco, split: str, masks: bool) -> None:
        training = split == "train"
        self.annotation_file = tree.annotation_file(split)
        self.image_folder = tree.root / tree.folder_of(split)
        self.shorter_sides = tree.shorter_sides if training else tree.shorter_sides[-1:]
        self.longer_side = tree.longer_side
        self.flip = tree.flip if training else 0.0
        self.masks = masks
        self.upright = tree.upright
        self.bits = tree.bits
        self.annotations = read_annotations(self.annotation_file, training, tree.index)
        self.image_ids = self.annotations.image_ids
        super().__init__(len(self.image_ids), tree.on_damaged, training)
        self.class_names = self.annotations.categories
        self.category_ids = self.annotations.category_ids.tolist()
        self.dropped = self.annotations.dropped
        self.files, respelt = find_files(self.image_folder, self.annotations.file_names.tolist())
        _check_images(self.image_folder, self.files)
        self._tell(respelt)
        counts = np.bincount(self.annotations.labels, minlength=self.num_classes)
        self.unseen = tuple(np.array(self.class_names, object)[counts == 0])
        self.former_fingerprint = self.annotations.fingerprint
        self.fingerprint = fingerprint(
            self.annotations.fingerprint, self.image_folder, self.files, tree.index
        )

    @cached_property
    def ground_truth(self) -> dict[str, Any]:
        """The annotations in the form of COCO's file, for its metric, tables and pictures."""
        return self.annotations.as_document()

    def _tell(self, respelt: int) -> None:
        """Say what was made of the annotation file."""
        changes = dict(self.annotations.changed)
        if respelt:
            changes["file names found under another spelling"] = respelt
        if changes:
            say(f"{self.annotation_file.name}: {describe(changes)}")

    def load(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """One image, resized and perhaps flipped, and its objects."""
        height, width = self.annotations.sizes[index].tolist()
        original = self._read_image(index)
        size = resized_size(height, width, self._draw_shorter_side(), self.longer_side)
        image = resize_image(original, size)
        target = self._target(index, size)
        if self.flip and torch.rand(()) < self.flip:
            image, target = flip_horizontally(image, target)
        return image, target

    def _draw_shorter_side(self) -> int | None:
        if len(self.shorter_sides) == 1:
            return self.shorter_sides[0]
        return self.shorter_sides[int(torch.randint(len(self.shorter_sides), ()))]

    def _read_image(self, index: int) -> Tensor:
        path = self.image_folder / self.files[index]
        image = read_image(path, self.upright, self.bits)
        height, width = self.annotations.sizes[index].tolist()
        if image.shape[-2:] != (height, width):
            raise InputError(
                f"The image {path} has {image.shape[-1]} x {image.shape[-2]} pixels, but "
                f"{self.annotation_file} says {width} x {height}: they do not belong together."
            )
        return image

    def _target(self, index: int, size: tuple[int, int]) -> dict[str, Tensor]:
        held = self.annotations
        rows = slice(held.offsets[index], held.offsets[index + 1])
        original = torch.from_numpy(held.sizes[index].copy())
        scale = torch.tensor(size) / original
        target = {
            "boxes": torch.from_numpy(held.boxes[rows].copy()) * scale.flip(0).repeat(2),
            "labels": torch.from_numpy(held.labels[rows].copy()),
            "iscrowd": torch.from_numpy(held.iscrowd[rows].copy()),
            "image_id": torch.tensor(int(held.image_ids[index])),
            "size": original,
        }
        if self.masks:
            height, width = original.tolist()
            masks = [self._mask(row, height, width) for row in range(rows.start, rows.stop)]
            stacked = torch.stack(masks) if masks else torch.zeros((0, height, width)).bool()
            target["masks"] = resize_masks(stacked, size)
        return target

    def _mask(self, row: int, height: int, width: int) -> Tensor:
        """The mask (H, W) of one object from its polygons or run lengths."""
        outline = self.annotations.segmentations[row]
        try:
            if isinstance(outline, dict) and outline.get("size") not in (None, [height, width]):
                raise ValueError(
                    f"its size is {outline['size']}, that of the image {[height, width]}"
                )
            mask = mask_api.decode(mask_api.segmToRle(outline, width, height))
            counts = outline["counts"] if isinstance(outline, dict) else None
            # Earlier versions of the library do not mind run lengths that end too soon.
            if isinstance(counts, list) and sum(counts) != mask.size:
                raise ValueError(f"its run lengths cover {sum(counts)} of {mask.size} pixels")
            if mask.shape != (height, width):
                raise ValueError(f"its size is {mask.shape}, that of the image {(height, width)}")
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.annotation_file}: annotation {self.annotations.ids[row]} has no usable "
                f"'segmentation' ({str(error).splitlines()[0]}). Expected polygons or run lengths "
                "of the image's size."
            ) from error
        return torch.from_numpy(np.ascontiguousarray(mask, np.bool_))


def flip_horizontally(image: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Mirror an image (3, H, W) and the boxes and masks of its target from left to right."""
    left, top, right, bottom = target["boxes"].unbind(1)
    width = image.shape[-1]
    boxes = torch.stack([width - right, top, width - left, bottom], dim=1)
    flipped = {**target, "boxes": boxes}
    if "masks" in target:
        flipped["masks"] = target["masks"].flip(-1)
    return image.flip(-1), flipped


def _check_images(folder: Path, names: list[str]) -> None:
    present = {path.name for path in folder.iterdir()}
    # Names may lead into subfolders, so what the listing lacks is looked up by itself.
    missing = [
        name
        for name in names
        if name not in present and not (is_inside(name) and is_file(folder / name))
    ]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} images are missing in {folder}: "
            f"{some_of([name[:SHOWN] for name in missing], 3)}. The names are those "
            "of the annotation file: take the images that belong to it."
        )
