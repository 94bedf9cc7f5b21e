"""How cells reach the machines: submitit's executors, for this machine and for SLURM."""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import submitit
from omegaconf import DictConfig
from submitit.core.utils import FailedJobError, FailedSubmissionError

from pvt_bench.config import LauncherName
from pvt_bench.errors import InputError, nearest
from pvt_bench.launching.cell import Submitted
from pvt_bench.tracking.environment import launch_here

Launch = dict[str, Any]


def check_launcher(config: DictConfig) -> None:
    """Refuse a launcher that cannot start the cell from here.

    Raises:
        InputError: no SLURM here, a partition that it has not, too few GPUs for one cell.
    """
    launcher = config.launcher
    if launcher.name == LauncherName.slurm:
        _check_slurm(launcher)
    if launcher.name == LauncherName.local:
        wanted, here = count_gpus(config), visible_gpus(config)
        if wanted * launcher.jobs > len(here):
            raise InputError(
                f"launcher.jobs={launcher.jobs} cells at once with {wanted} GPUs each need "
                f"{wanted * launcher.jobs}, and this machine has {len(here)}. Type "
                f"launcher.jobs={max(1, len(here) // wanted)}, or fewer trainer.devices."
            )


def count_gpus(config: DictConfig) -> int:
    """GPUs of each node of a cell."""
    asked: int | None = config.launcher.gpus
    if asked is not None:
        return asked
    wanted = ["gpu"]
    if config.launcher.name == LauncherName.local and visible_gpus(config):
        wanted.append("auto")
    return config.trainer.devices if config.trainer.accelerator in wanted else 0


def visible_gpus(config: DictConfig) -> list[int]:
    """The numbers of the GPUs that cells on this machine share."""
    import torch

    if config.launcher.visible_gpus is not None:
        return list(config.launcher.visible_gpus)
    return list(range(torch.cuda.device_count()))


def submit_to_slurm(
    directories: Sequence[Path], config: DictConfig, folder: Path, name: str
) -> list[Launch]:
    """Submit a job array, one task of it a record; what to note of each.

    config: of any of the cells, which ask for the same machines.
    """
    launcher, trainer = config.launcher, config.trainer
    executor = submitit.SlurmExecutor(folder, max_num_timeout=launcher.max_num_timeout)
    parameters = {
        "job_name": name,
        "time": launcher.timeout_min,
        "nodes": trainer.num_nodes,
        "ntasks_per_node": trainer.devices,
        "gpus_per_node": count_gpus(config) or None,
        "cpus_per_task": launcher.cpus_per_task,
        "mem": None if launcher.mem_gb is None else f"{int(1024 * launcher.mem_gb)}MB",
        "signal_delay_s": launcher.signal_delay_s,
        "array_parallelism": launcher.jobs,
        "setup": list(launcher.setup) or None,
        "additional_parameters": dict(launcher.additional_parameters) or None,
        "stderr_to_stdout": True,
        **{key: launcher[key] for key in ("partition", "account", "qos", "constraint")},
    }
    executor.update_parameters(
        **{key: each for key, each in parameters.items() if each is not None}
    )
    try:
        # submitit prints what SLURM complains of, besides raising it.
        with redirect_stderr(StringIO()), executor.batch():
            jobs = [executor.submit(Submitted(directory)) for directory in directories]
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise InputError(
            f"SLURM did not take the job: {_last_line(error)}. Nothing was queued; conf/launcher/"
            "slurm.yaml has what can be set."
        ) from error
    return [{"launcher": "slurm", "job": job.job_id, "log": str(job.paths.stdout)} for job in jobs]


class LocalSlots:
    """Starts cells on this machine, `launcher.jobs` at a time, each with GPUs of its own."""

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.jobs: list[submitit.Job[Any] | None] = [None] * config.launcher.jobs

    def free(self) -> Iterator[int]:
        """The numbers of the slots that have nothing to do."""
        for slot, job in enumerate(self.jobs):
            if job is None or job.done(force_check=True) or job.get_info()["jobState"] != "RUNNING":
                yield slot

    def start(self, slot: int, directory: Path) -> Launch:
        """Start a cell in a free slot; what to note of it."""
        gpus = count_gpus(self.config)
        # Ctrl-C in this terminal is for this process, which asks the cells to stop.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            job = self.jobs[slot] = self._executor(slot, gpus).submit(Submitted(directory))
        finally:
            signal.signal(signal.SIGINT, previous)
        return launch_here(int(job.job_id), str(job.paths.stdout))

    def _executor(self, slot: int, gpus: int) -> submitit.LocalExecutor:
        launcher = self.config.launcher
        executor = submitit.LocalExecutor(self.folder, max_num_timeout=launcher.max_num_timeout)
        executor.update_parameters(
            timeout_min=launcher.timeout_min,
            tasks_per_node=self.config.trainer.devices,
            gpus_per_node=gpus,
            visible_gpus=visible_gpus(self.config)[slot * gpus : (slot + 1) * gpus],
            signal_delay_s=launcher.signal_delay_s,
            stderr_to_stdout=True,
            setup=list(launcher.setup),
        )
        return executor

    def stop(self) -> None:
        """Ask all cells to save and to leave."""
        for job in self.jobs:
            if job is not None and job.get_info()["jobState"] == "RUNNING":
                process = psutil.Process(int(job.job_id))
                # A shell with the lines of `setup` hands no signal on.
                for each in process.children() if self.config.launcher.setup else [process]:
                    each.terminate()


def _check_slurm(launcher: DictConfig) -> None:
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise InputError(
            "launcher=slurm: there is no sbatch here. Type it on a machine that submits to SLURM, "
            "or launcher=local to run the cells on this one."
        )
    answer = subprocess.run(
        ["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True, timeout=60
    )
    if answer.returncode:
        raise InputError(f"launcher=slurm: SLURM does not answer ({answer.stderr.strip()}).")
    partitions = sorted(set(answer.stdout.split()))
    if launcher.partition is not None:
        for asked in launcher.partition.split(","):
            if asked not in partitions:
                raise InputError(
                    f"launcher.partition={asked}: SLURM has no such partition. "
                    f"{nearest(asked, partitions)}"
                )


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
