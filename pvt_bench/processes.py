"""What several processes of one run tell each other; one process alone is the plain case."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many processes work on the run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gather(items: list[Any]) -> list[Any]:
    """The items of all processes, in the order of their ranks, on each of them."""
    if count() == 1:
        return items
    parts: list[Any] = [None] * count()
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def first(action: Callable[[], T]) -> T:
    """What `action` gives on the first process, which alone does it, on all of them.

    An exception that it raises there is raised on all.
    """
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error
    if count() > 1:
        distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


def all_of(verdict: Tensor) -> bool:
    """Whether a verdict () bool is true on every process."""
    if count() > 1:
        verdict = verdict.to(torch.int32)
        distributed.all_reduce(verdict, distributed.ReduceOp.MIN)
    return bool(verdict)


def average(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes, on each of them; no gradient passes."""
    if count() == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / count()


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that the environment names, as `torchrun` does: WORLD_SIZE, RANK,
    LOCAL_RANK, MASTER_ADDR, MASTER_PORT. Without them the process is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # What processes tell each other beside gradients lies in the memory of the CPU.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()
