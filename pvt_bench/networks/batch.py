"""From images of any size to the one tensor that a network computes on."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normalise_and_pad(
    images: Sequence[Tensor] | Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    multiple: int = 32,
) -> Tensor:
    """Normalise images and pad them, right and below, to one size divisible by `multiple`.

    images: tensors (3, H_i, W_i), or one (B, 3, H, W), with values in [0, 1].
    mean, std: of the backbone's training, per channel.
    Returns (B, 3, H, W). The padding is zero after normalising, the mean colour, as in the
    published detectors.
    """
    height = max(image.shape[-2] for image in images)
    width = max(image.shape[-1] for image in images)
    height, width = -(-height // multiple) * multiple, -(-width // multiple) * multiple
    first = images[0]
    shift = torch.tensor(mean, device=first.device, dtype=first.dtype)[:, None, None]
    scale = torch.tensor(std, device=first.device, dtype=first.dtype)[:, None, None]
    batch = first.new_zeros((len(images), first.shape[0], height, width))
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[-2], : image.shape[-1]] = (image - shift) / scale
    return batch
