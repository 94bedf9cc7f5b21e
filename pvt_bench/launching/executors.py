"""Which launchers can start a cell, and the processes of this machine that run some."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import submitit

from pvt_bench.config.schema import Config, LauncherName
from pvt_bench.errors import InputError
from pvt_bench.launching.cell import Submitted
from pvt_bench.launching.jobs import Launch
from pvt_bench.launching.resources import count_gpus, visible_gpus
from pvt_bench.launching.submitting import check_slurm
from pvt_bench.tracking.environment import launch_here


def check_launcher(config: Config) -> None:
    """Refuse a launcher that cannot start the cell from here.

    Raises:
        InputError: see `check_slurm`, or too few GPUs here for one cell.
    """
    launcher = config.launcher
    if launcher.name == LauncherName.slurm:
        check_slurm(config)
    if launcher.name == LauncherName.local:
        wanted, here = count_gpus(config), visible_gpus(config)
        if wanted * launcher.jobs > len(here):
            raise InputError(
                f"launcher.jobs={launcher.jobs} cells at once with {wanted} GPUs each need "
                f"{wanted * launcher.jobs}, and this machine has {len(here)}. Type "
                f"launcher.jobs={max(1, len(here) // wanted)}, or fewer trainer.devices."
            )


class LocalSlots:
    """Starts cells on this machine, `launcher.jobs` at a time, each with GPUs of its own."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.jobs: list[submitit.Job[Any] | None] = [None] * config.launcher.jobs

    def free(self) -> Iterator[int]:
        """The numbers of the slots that have nothing to do."""
        for slot, job in enumerate(self.jobs):
            if job is None or job.done(force_check=True) or job.get_info()["jobState"] != "RUNNING":
                yield slot

    def all_free(self) -> bool:
        """Whether no process is left; a finished cell's may still be writing to MLflow."""
        return len(list(self.free())) == len(self.jobs)

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
