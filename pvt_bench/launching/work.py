"""Cells at work: in this process, as processes of this machine, or in a queue of SLURM's."""

import json
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil
import submitit

from pvt_bench.commands import INTERRUPTED
from pvt_bench.config.launchers import LauncherName
from pvt_bench.config.schema import Config, plain
from pvt_bench.errors import InputError, Interrupted
from pvt_bench.launching.cell import Submitted, run_cell
from pvt_bench.launching.preparing import note_launches
from pvt_bench.launching.ranks import run_ranks
from pvt_bench.launching.resources import count_gpus, visible_gpus
from pvt_bench.launching.submitting import submit_to_slurm
from pvt_bench.launching.sweep import State, Sweep
from pvt_bench.launching.watching import conclude, how_long, show, wait
from pvt_bench.outcome import Outcome
from pvt_bench.screen import log, say
from pvt_bench.tracking.environment import launch_here
from pvt_bench.tracking.reading import read_status
from pvt_bench.tracking.record import Record

# Runs one cell in this process, and reports what goes wrong.
RunHere = Callable[[Callable[[], Outcome]], None]


class Claimed(NamedTuple):
    """A cell that this launch has to run, its name in the sweep, and the record's directory."""

    directory: Path
    config: Config
    name: str


class Work(Protocol):
    """Cells that are being started."""

    def step(self) -> bool:
        """Start what can be started now; whether there is more to start or to wait for."""

    def stop(self) -> None:
        """Let what can be ended come to a safe end, and start nothing more."""


class Here:
    """One cell after the other, in this process."""

    def __init__(self, to_do: list[Claimed], run_here: RunHere) -> None:
        self.to_do = to_do
        self.run_here = run_here
        self.number = len(to_do)

    def step(self) -> bool:
        """Run all of them."""
        began = time.monotonic()
        while self.to_do:
            done = self.number - len(self.to_do)
            times = how_long(time.monotonic() - began, done, len(self.to_do)) if done else ""
            say(f"[{done + 1}/{self.number}] {self.to_do[0].name}{times}")
            log.clear()
            self.run_here(partial(_run, self.to_do[0]))
            del self.to_do[0]
        return False

    def stop(self) -> None:
        """Release those that wait; the one at work has stopped already."""
        _release(self.to_do)
        self.to_do = []


class Local:
    """Each cell a process of its own on this machine: `launcher.jobs` at a time, each in a slot
    with GPUs of its own."""

    def __init__(self, sweep: Sweep, to_do: list[Claimed]) -> None:
        self.to_do = to_do
        self.number = len(to_do)
        self.folder = sweep.directory / "jobs"
        self.jobs: list[submitit.Job[Any] | None] = []
        if to_do:
            self.config = to_do[0].config
            self.jobs = [None] * self.config.launcher.jobs

    def step(self) -> bool:
        """Start cells in the free slots; returns whether any process is still alive.

        The process of a finished cell counts: it may still be writing to MLflow.
        """
        for slot in self._free():
            if self.to_do:
                directory, _, name = self.to_do[0]
                job = self.jobs[slot] = self._submit(slot, directory)
                note_launches([directory], [launch_here(int(job.job_id), str(job.paths.stdout))])
                del self.to_do[0]
                say(f"[{self.number - len(self.to_do)}/{self.number}] {name}")
        return self.is_busy()

    def is_busy(self) -> bool:
        """Whether a process of a cell is alive."""
        return len(self._free()) < len(self.jobs)

    def stop(self) -> None:
        """Ask those at work to save and to leave."""
        _release(self.to_do)
        self.to_do = []
        for job in self.jobs:
            if job is not None and job.get_info()["jobState"] == "RUNNING":
                process = psutil.Process(int(job.job_id))
                # A shell with the lines of `setup` hands no signal on.
                for each in process.children() if self.config.launcher.setup else [process]:
                    each.terminate()

    def _free(self) -> list[int]:
        return [
            slot
            for slot, job in enumerate(self.jobs)
            if job is None or job.done(force_check=True) or job.get_info()["jobState"] != "RUNNING"
        ]

    def _submit(self, slot: int, directory: Path) -> submitit.Job[Any]:
        launcher, gpus = self.config.launcher, count_gpus(self.config)
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
        # Ctrl-C in this terminal is for this process, which asks the cells to stop.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return executor.submit(Submitted(directory))
        finally:
            signal.signal(signal.SIGINT, previous)


class Slurm:
    """Each cell a task of a job array; arrays differ by the machines that cells ask for."""

    def __init__(self, sweep: Sweep, to_do: list[Claimed]) -> None:
        self.sweep = sweep
        groups: dict[str, list[Claimed]] = {}
        for each in to_do:
            groups.setdefault(_machines(each.config), []).append(each)
        waiting = list(groups.values())
        try:
            while waiting:
                directories = [each.directory for each in waiting[0]]
                folder, config = sweep.directory / "jobs", waiting[0][0].config
                launches = submit_to_slurm(directories, config, folder, sweep.name)
                note_launches(directories, launches)
                del waiting[0]
        except InputError:
            _release([each for group in waiting for each in group])
            raise
        if to_do:
            say(f"{len(to_do)} cells are queued")

    def step(self) -> bool:
        """All of them are in the queue."""
        return False

    def stop(self) -> None:
        """Jobs go on without the command that submitted them."""
        say(
            f"the jobs go on; python -m pvt_bench.status sweep={self.sweep.name} shows them, and "
            f"scancel --name={self.sweep.name} ends them"
        )


def begin(launcher: str, sweep: Sweep, to_do: list[Claimed], run_here: RunHere) -> Work:
    """Begin the work as a launcher does it."""
    if launcher == LauncherName.slurm:
        return Slurm(sweep, to_do)
    if launcher == LauncherName.local:
        return Local(sweep, to_do)
    return Here(to_do, run_here)


def see_through(sweep: Sweep, work: Work) -> list[State]:
    """Wait for the end of all cells; the table. Ctrl-C ends the waiting."""
    try:
        states = conclude(sweep, wait(sweep, work.step))
    except KeyboardInterrupt:
        work.stop()
        if isinstance(work, Local) and work.is_busy():
            say("Ctrl-C: the cells stop after their steps, with checkpoints")
            say("press it again to leave at once; they stop all the same")
        if not isinstance(work, Slurm):
            show(sweep, conclude(sweep, wait(sweep, partial(_stop_again, work))))
        raise
    show(sweep, states)
    return states


def _stop_again(work: Work) -> bool:
    # A cell hears it once its training has begun.
    work.stop()
    return work.step()


def _run(claimed: Claimed) -> Outcome:
    """Run one frozen cell from this process, on all its devices."""
    directory, config, _ = claimed
    if config.trainer.devices == 1:
        return run_cell(directory, submitted=False)
    code = run_ranks(directory, config.trainer.devices)
    status = read_status(directory)
    if code == INTERRUPTED:
        raise Interrupted(status["error"] or "stopped", signal.SIGINT)
    if status["state"] != "finished":
        raise RuntimeError(status["error"] or f"the processes ended with {code}")
    return Outcome(config, directory, status["result"], status.get("measured", {}))


def _release(to_do: Sequence[Claimed]) -> None:
    """Note that cells which were claimed will not be started, nor gone on with, by this command."""
    for each in to_do:
        with Record.reopen(each.directory) as record:
            if record.status["state"] == "queued":
                record.update(state="interrupted", error="stopped before it was started")
            # This process is alive, but no more is to come of it.
            record.update(launch=None)


def _machines(config: Config) -> str:
    """What a cell asks of the machines that run it."""
    values = plain(config)
    trainer = [values["trainer"][key] for key in ("accelerator", "devices", "num_nodes")]
    return json.dumps([values["launcher"], trainer], sort_keys=True)
