"""Images as tensors, and their sizes."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pvt_bench.datasets.image_files import open_image

# ImageNet's mean and deviation, by which most backbones normalise: what is filled in is filled in
# so that it becomes 0, or standard normal, once an image is normalised.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_image(path: Path, upright: bool = True, bits: int | None = None) -> Tensor:
    """Read an image file like `open_image`, as uint8 (3, H, W)."""
    return F.pil_to_tensor(open_image(path, upright, bits))


def resized_size(
    height: int, width: int, shorter_side: int | None, longer_side: int | None
) -> tuple[int, int]:
    """The (height, width) at which the shorter side is `shorter_side`, or less where the longer
    would exceed `longer_side`; the size itself where `shorter_side` is None. In pixels, rounded
    half up as in Detectron2 and MMDetection.
    """
    if shorter_side is None:
        return height, width
    scale = shorter_side / min(height, width)
    if longer_side is not None:
        scale = min(scale, longer_side / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 (3, H, W) to `size` and scale to float32 in [0, 1]."""
    if image.shape[-2:] != size:
        image = F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
    return F.to_dtype(image, torch.float32, scale=True)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bool (n, H, W) to `size`, taking the nearest pixel."""
    if masks.shape[-2:] == size or not len(masks):
        return masks.new_zeros((len(masks), *size)) if not len(masks) else masks
    resized = F.resize(masks.to(torch.uint8), list(size), InterpolationMode.NEAREST_EXACT)
    return resized.to(torch.bool)


def resize_segments(segments: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize labels (H, W) to `size`, taking the nearest pixel."""
    if segments.shape == size:
        return segments
    return F.resize(segments[None], list(size), InterpolationMode.NEAREST_EXACT)[0]
