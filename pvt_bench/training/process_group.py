"""The processes of one run, one a device: how each finds the others, and Lightning finds them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from pvt_bench.training.processes import count


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


def trainer_settings() -> dict[str, Any]:
    """What Lightning's Trainer has to be told of the processes.

    The environment is always named: left to itself, Lightning would take a job of SLURM's for its
    own, and requeue it.
    """
    if count() == 1:
        return {"devices": 1, "plugins": [LightningEnvironment()]}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return {
        "devices": here,
        "num_nodes": count() // here,
        "plugins": [TorchElasticEnvironment()],
        # Some heads leave a level of the pyramid unused, and a batch without objects the masks.
        "strategy": DDPStrategy(find_unused_parameters=True),
        "use_distributed_sampler": False,
    }
