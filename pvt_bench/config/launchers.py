"""Keys of `launcher`, and how its GPUs are typed."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from pvt_bench.errors import InputError


class LauncherName(StrEnum):
    """Where the processes of runs are started."""

    in_process = "in_process"
    local = "local"
    slurm = "slurm"


@dataclass
class Launcher:
    """How the cells of a sweep are started; a launcher ignores the keys that it does not know.

    name: where cells run: one after the other in this process, as processes of this machine, or
        as jobs of SLURM.
    jobs: cells that run at once; on SLURM the limit of the job array.
    gpus: GPUs per node of a cell, on SLURM with a type if needed, as in a100:2. Null is one per
        device where `trainer.accelerator` is gpu, on this machine also where it is auto and there
        are GPUs.
    visible_gpus: numbers of this machine's GPUs that local cells share; null is all.
    cpus_per_task: CPU cores per process, on SLURM.
    mem_gb: memory per node in GB, on SLURM.
    timeout_min: time limit of a cell in minutes; a cell that reaches it saves and continues in a
        new job.
    max_num_timeout: how often a cell continues after its time limit.
    signal_delay_s: seconds before the time limit at which a cell is told to save.
    partition: partition of SLURM.
    account: account of SLURM.
    qos: quality of service of SLURM.
    constraint: features that SLURM's nodes must have.
    setup: lines of shell before the cell, such as `module load cuda`.
    additional_parameters: any other options of `sbatch` by name, sent as typed; a `gres` replaces
        `gpus`.
    detach: return once the cells are submitted; `python -m pvt_bench.status` shows them.
    allow_changed_code: run a queued cell even if the code has changed since it was submitted.
    """

    name: LauncherName = LauncherName.in_process
    jobs: int = 1
    gpus: int | str | None = None
    visible_gpus: list[int] | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    timeout_min: int = 4320
    max_num_timeout: int = 20
    signal_delay_s: int = 120
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    detach: bool = False
    allow_changed_code: bool = False


class Gpus(NamedTuple):
    """GPUs of a node: how many, and of which type, in SLURM's words."""

    number: int
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}" if self.kind else str(self.number)


def read_gpus(typed: int | str | None) -> Gpus | None:
    """What `launcher.gpus` asks for; None where nothing is typed.

    Raises:
        InputError: it is neither a number nor a type with a number.
    """
    if typed is None:
        return None
    found = re.fullmatch(r"(?:([A-Za-z][\w.-]*):(?=0*[1-9]))?(\d+)", str(typed))
    if found is None:
        raise InputError(
            f"launcher.gpus={typed} must be the number of GPUs of a node, or one of SLURM's types "
            "with a number. Use for example launcher.gpus=2 or launcher.gpus=a100:2."
        )
    return Gpus(int(found[2]), found[1] or "")
