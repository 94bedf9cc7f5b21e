"""What training on scenes changes at random: the part that is seen, and its colours.

All numbers are drawn from Python's generator. The defaults are those of MMSegmentation 0.x's
`RandomCrop` and `PhotoMetricDistortion`.
"""

import random

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from pvt_bench.datasets.images import MEAN

CROP_TRIES = 10
BRIGHTNESS = 32 / 255  # added, at most
CONTRAST = SATURATION = (0.5, 1.5)  # factors
HUE = 18 / 180  # turns, at most

# (top, left, height, width) in pixels
Place = tuple[int, int, int, int]


def draw_crop(segments: Tensor, side: int, largest_share: float, ignored: int) -> Place:
    """Where to cut at most `side` by `side` pixels out of `segments` (H, W) uint8.

    A place is tried again, ten times in all, where it has one class only or one that has more
    than its share of the pixels that are not ignored.
    """
    height, width = segments.shape
    for _ in range(CROP_TRIES):
        top = random.randint(0, max(0, height - side))
        left = random.randint(0, max(0, width - side))
        place = (top, left, min(side, height), min(side, width))
        if largest_share >= 1:
            break
        counts = torch.bincount(crop(segments, place).flatten(), minlength=256)
        counts[ignored] = 0
        if (counts > 0).sum() > 1 and counts.max() < largest_share * counts.sum():
            break
    return place


def crop(image: Tensor, place: Place) -> Tensor:
    """A part of an image (..., H, W)."""
    top, left, height, width = place
    return image[..., top : top + height, left : left + width]


def pad(image: Tensor, segments: Tensor, side: int, ignored: int) -> tuple[Tensor, Tensor]:
    """Fill an image (3, H, W) with ImageNet's mean, and its segments (H, W) with `ignored`,
    right and below, up to (side, side)."""
    height, width = segments.shape
    border = [0, 0, side - width, side - height]
    if not any(border):
        return image.contiguous(), segments.contiguous()
    filled: Tensor = F.pad(image, border, fill=list(MEAN))
    return filled, F.pad(segments[None], border, fill=ignored)[0]


def distort_colours(image: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of an image (3, H, W) in [0, 1], each with
    probability 0.5, the contrast before or after the colours."""
    if _heads():
        image = (image + random.uniform(-BRIGHTNESS, BRIGHTNESS)).clamp(0, 1)
    contrast_first = _heads()
    if contrast_first:
        image = _change_contrast(image)
    if _heads():
        image = scale_saturation(image, random.uniform(*SATURATION))
    if _heads():
        image = F.adjust_hue(image, random.uniform(-HUE, HUE)).clamp(0, 1)
    return image if contrast_first else _change_contrast(image)


def scale_saturation(image: Tensor, factor: float) -> Tensor:
    """Multiply the saturation of HSV, up to 1, keeping hue and value; image (3, H, W) in [0, 1]."""
    value = image.amax(0, keepdim=True)
    chroma = value - image.amin(0, keepdim=True)
    largest = value / chroma.clamp(min=torch.finfo(image.dtype).eps)
    return (value - (value - image) * largest.clamp(max=factor)).clamp(0, 1)


def _change_contrast(image: Tensor) -> Tensor:
    return (image * random.uniform(*CONTRAST)).clamp(0, 1) if _heads() else image


def _heads() -> bool:
    return random.random() < 0.5
