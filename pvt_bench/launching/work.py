"""Cells at work: in this process, as processes of this machine, or in a queue of SLURM's."""

import json
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from pvt_bench.commands import INTERRUPTED
from pvt_bench.config.schema import Config, LauncherName, plain
from pvt_bench.errors import InputError, Interrupted
from pvt_bench.launching.cell import run_cell
from pvt_bench.launching.executors import LocalSlots
from pvt_bench.launching.preparing import note_launches
from pvt_bench.launching.ranks import run_ranks
from pvt_bench.launching.states import State
from pvt_bench.launching.submitting import submit_to_slurm
from pvt_bench.launching.summary import show
from pvt_bench.launching.sweep import Sweep
from pvt_bench.launching.watching import conclude, wait
from pvt_bench.outcome import Outcome
from pvt_bench.screen import say
from pvt_bench.tracking.record import Record, read_status

# Runs one cell in this process, and reports what goes wrong.
RunHere = Callable[[Callable[[], Outcome]], None]


class Claimed(NamedTuple):
    """A cell that this launch has to run, and the directory of its record."""

    directory: Path
    config: Config


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

    def step(self) -> bool:
        """Run all of them."""
        while self.to_do:
            self.run_here(partial(_run, self.to_do[0]))
            del self.to_do[0]
        return False

    def stop(self) -> None:
        """The one at work has stopped already; the others wait no longer."""
        _release(self.to_do)
        self.to_do = []


class Local:
    """Each cell a process of its own on this machine, some at a time."""

    def __init__(self, sweep: Sweep, to_do: list[Claimed]) -> None:
        self.to_do = to_do
        self.folder = sweep.directory / "jobs"
        self.slots: LocalSlots | None = None

    def step(self) -> bool:
        """Put cells into the slots that are free."""
        if self.to_do and self.slots is None:
            self.slots = LocalSlots(self.to_do[0].config, self.folder)
        if self.slots is None:
            return False
        for slot in self.slots.free():
            if self.to_do:
                directory = self.to_do[0].directory
                note_launches([directory], [self.slots.start(slot, directory)])
                del self.to_do[0]
        return not self.slots.all_free()

    def stop(self) -> None:
        """Ask those at work to save and to leave."""
        _release(self.to_do)
        self.to_do = []
        if self.slots:
            self.slots.stop()


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
                self._submit(waiting[0])
                del waiting[0]
        except InputError:
            _release([each for group in waiting for each in group])
            raise
        if to_do:
            say(f"{len(to_do)} cells are queued")

    def _submit(self, group: Sequence[Claimed]) -> None:
        directories = [each.directory for each in group]
        folder = self.sweep.directory / "jobs"
        launches = submit_to_slurm(directories, group[0].config, folder, self.sweep.name)
        note_launches(directories, launches)

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
    directory, config = claimed
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
