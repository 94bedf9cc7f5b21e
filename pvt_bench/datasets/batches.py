"""Batches that travel from a loader's process to the main one in one piece."""

import os
import shutil
import time
from collections.abc import Callable
from itertools import accumulate
from multiprocessing.reduction import DupFd, ForkingPickler
from pickle import loads
from tempfile import TemporaryFile, gettempdir
from typing import Any

import torch
from torch import Tensor

from pvt_bench.errors import InputError
from pvt_bench.screen import warn

ALIGNMENT = 16  # bytes; no dtype needs more
SHARED_MEMORY = "/dev/shm"

Target = dict[str, Tensor]
# dtype and shape of a tensor, and the bytes where it starts
Place = tuple[torch.dtype, torch.Size, int]


class Batch(tuple[list[Tensor], list[Target]]):
    """The images and the targets of a batch.

    torch sends every tensor through a shared memory of its own, which takes half a millisecond
    and more, and a batch of sixteen has sixty tensors. This one is sent as a single tensor of
    bytes, in shared memory or, where that is full, in a file; it arrives as a plain tuple whose
    tensors are views of that.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        images, targets = self
        tensors = [*images, *(tensor for target in targets for tensor in target.values())]
        sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors]
        *starts, total = accumulate(sizes, initial=0)
        content, sent = _allocate(total)
        places: list[Place] = []
        for tensor, start in zip(tensors, starts, strict=True):
            _view(content, (tensor.dtype, tensor.shape, start)).copy_(tensor)
            places.append((tensor.dtype, tensor.shape, start))
        return _arrive, (sent(content), places, len(images), [list(target) for target in targets])


class Sent:
    """A batch as it goes through the queue of a loader: the bytes that say where it lies.

    They are made here, in the thread that reads. The queue's own thread only prints an error, and
    the main process would wait for the batch for ever.

    Raises InputError where neither shared memory nor temporary files have room for it.
    """

    def __init__(self, batch: Batch) -> None:
        try:
            self.content = bytes(ForkingPickler.dumps(batch))
        except OSError as error:
            raise InputError(
                f"A batch cannot be handed over through {SHARED_MEMORY}{_free()}, nor through a "
                f"file in {gettempdir()}: {error}. Make room, set the variable TMPDIR to another "
                "folder with a short path, or use trainer.workers=0: the main process then reads "
                "the images itself."
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (self.content,)


def _receive(content: bytes) -> Any:
    try:
        return loads(content)
    except (OSError, EOFError):
        # Where the reader has just died: torch then raises a better error once it knows.
        time.sleep(1)
        raise


class _InFile:
    """The bytes of a tensor in a file without a name, which is gone once nobody has it open."""

    def __init__(self, content: Tensor) -> None:
        self.size = len(content)
        with TemporaryFile() as file:
            file.write(content.numpy().data)
            file.flush()
            self.descriptor = DupFd(file.fileno())

    def read(self) -> Tensor:
        """The bytes, in the main process."""
        _notice.give(self.size)
        content = torch.empty(self.size, dtype=torch.uint8)
        with os.fdopen(self.descriptor.detach(), "rb") as file:
            file.seek(0)
            file.readinto(content.numpy().data)
        return content


def _allocate(size: int) -> tuple[Tensor, Callable[[Tensor], Tensor | _InFile]]:
    """A tensor of so many bytes, and what makes of it what is sent."""
    # Shared from the start: sharing it later would copy it.
    try:
        storage = torch.UntypedStorage._new_shared(size)
    except (OSError, RuntimeError):  # no room, or not as many open files
        return torch.empty(size, dtype=torch.uint8), _InFile
    content = torch.empty(0, dtype=torch.uint8)
    content.set_(storage, 0, (size,))  # type: ignore[call-overload]
    return content, lambda shared: shared


def _arrive(
    sent: Tensor | _InFile, places: list[Place], images: int, keys: list[list[str]]
) -> tuple[list[Tensor], list[Target]]:
    content = sent.read() if isinstance(sent, _InFile) else sent
    tensors = iter([_view(content, place) for place in places])
    return [next(tensors) for _ in range(images)], [
        {key: next(tensors) for key in of_target} for of_target in keys
    ]


def _view(content: Tensor, place: Place) -> Tensor:
    dtype, shape, start = place
    return content[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)


class _Notice:
    """What is said once in a process: that batches take the slower way, and how to avoid it."""

    def __init__(self) -> None:
        self.given = False

    def give(self, size: int) -> None:
        if not self.given:
            self.given = True
            warn(
                f"shared memory ({SHARED_MEMORY}{_free()}) has no room for a batch of "
                f"{size / 1e6:,.1f} MB, so batches go through files in {gettempdir()}, which is "
                "slower. Start the container with --shm-size=8g or --ipc=host, or use fewer "
                "trainer.workers."
            )


_notice = _Notice()


def _free() -> str:
    """How much room shared memory has in all."""
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return ""
    return f" of {usage.total / 1e6:,.1f} MB"
