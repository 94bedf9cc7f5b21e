"""The processes of one run, one a device: how each finds the others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed


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
