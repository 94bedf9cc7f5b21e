"""Batches that travel from a loader's process to the main one in one piece."""

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes; no dtype needs more

Target = dict[str, Tensor]
# dtype and shape of a tensor, and the bytes where it starts
Place = tuple[torch.dtype, torch.Size, int]


class Batch(tuple[list[Tensor], list[Target]]):
    """The images and the targets of a batch.

    torch sends every tensor through a shared memory of its own, which takes half a millisecond
    and more, and a batch of sixteen has sixty tensors. This one is sent as a single tensor of
    bytes; it arrives as a plain tuple whose tensors are views of that.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        images, targets = self
        tensors = [*images, *(tensor for target in targets for tensor in target.values())]
        sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors]
        *starts, total = accumulate(sizes, initial=0)
        # Shared from the start: sharing it later would copy it.
        content = torch.empty(0, dtype=torch.uint8)
        content.set_(torch.UntypedStorage._new_shared(total), 0, (total,))  # type: ignore[call-overload]
        places: list[Place] = []
        for tensor, start in zip(tensors, starts, strict=True):
            _view(content, (tensor.dtype, tensor.shape, start)).copy_(tensor)
            places.append((tensor.dtype, tensor.shape, start))
        return _arrive, (content, places, len(images), [list(target) for target in targets])


def _arrive(
    content: Tensor, places: list[Place], images: int, keys: list[list[str]]
) -> tuple[list[Tensor], list[Target]]:
    tensors = iter([_view(content, place) for place in places])
    return [next(tensors) for _ in range(images)], [
        {key: next(tensors) for key in of_target} for of_target in keys
    ]


def _view(content: Tensor, place: Place) -> Tensor:
    dtype, shape, start = place
    return content[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)
