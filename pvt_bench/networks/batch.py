"""From images of any size to the one tensor that a network computes on."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Tensors (3, H_i, W_i), or one (B, 3, H, W), with values in [0, 1].
Images = Sequence[Tensor] | Tensor
# Height and width of each image, and per image what is true of it.
Sizes = list[tuple[int, int]]
Targets = Sequence[dict[str, Tensor]]


def padded_size(size: Sequence[int], multiple: int = 32) -> tuple[int, int]:
    """The least height and width of at least `size` that are divisible by `multiple`."""
    height, width = size
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def sizes_of(images: Images) -> Sizes:
    """Height and width of each image (3, H_i, W_i)."""
    return [(image.shape[-2], image.shape[-1]) for image in images]


def normalise_and_pad(
    images: Images, mean: Sequence[float], std: Sequence[float], multiple: int = 32
) -> Tensor:
    """Normalise images and pad them, right and below, to one size divisible by `multiple`.

    mean, std: of the backbone's training, per channel.
    Returns (B, 3, H, W). The padding is zero after normalising, the mean colour, as in the
    published detectors.
    """
    largest = [max(sides) for sides in zip(*sizes_of(images), strict=True)]
    height, width = padded_size(largest, multiple)
    first = images[0]
    shift = torch.tensor(mean, device=first.device, dtype=first.dtype)[:, None, None]
    scale = torch.tensor(std, device=first.device, dtype=first.dtype)[:, None, None]
    batch = first.new_zeros((len(images), first.shape[0], height, width))
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[-2], : image.shape[-1]] = (image - shift) / scale
    return batch
