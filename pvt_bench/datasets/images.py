"""Images from files to tensors."""

from pathlib import Path

import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pvt_bench.errors import InputError


def read_image(path: Path) -> Tensor:
    """Read an image file as uint8 RGB (3, H, W), upright as its EXIF orientation says.

    Grey, palette and CMYK images are converted. A file that is missing, empty, cut short or no
    image is an InputError that names it.
    """
    # Another library may have allowed truncated images; their lower part would train as grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(path) as image:
            return F.pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InputError(
            f"The image {path} cannot be read ({error}). Expected a whole image file; "
            "copy or download it again."
        ) from error


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
