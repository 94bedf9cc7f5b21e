"""One cell of a sweep on the machine that runs it: the configuration frozen at its submission.

`python -m pvt_bench.launching.cell DIRECTORY` runs the record in DIRECTORY.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pvt_bench.commands import report
from pvt_bench.config.registry import register
from pvt_bench.config.schema import Config, Mode, typed
from pvt_bench.errors import InputError, Interrupted
from pvt_bench.files import replace
from pvt_bench.launching.jobs import LONG_PATIENCE_S, NoAnswer, insist
from pvt_bench.outcome import Outcome
from pvt_bench.processes import spin_briefly
from pvt_bench.tracking.environment import source_digest
from pvt_bench.tracking.lease import AlreadyRunning
from pvt_bench.tracking.reading import read_status
from pvt_bench.tracking.record import Record

FROZEN = "launch.json"


def freeze(
    directory: Path, config: dict[str, Any], name: str, tags: dict[str, str], line: str
) -> None:
    """Write all that the cell needs to run beside its record.

    config: plain and resolved; name, tags: in MLflow; line: which dataset is used, and why.
    """
    values = {
        "config": config | {"rerun": False},
        "name": name,
        "tags": tags,
        "dataset_line": line,
        "source": source_digest(),
    }
    replace(directory / FROZEN, json.dumps(values, indent=2).encode())


def thaw(directory: Path, submitted: bool = False) -> tuple[Config, dict[str, Any]]:
    """Read the configuration of a frozen cell, and all else that was frozen with it.

    submitted: by another process, perhaps long ago.

    Raises:
        InputError: nothing is frozen there, or the code has changed since the submission.
    """
    path = directory / FROZEN
    if not path.exists():
        raise InputError(
            f"{path} is not there: either results_dir is not shared with this machine, or the cell "
            "was never submitted. Run the command of the sweep again, with a results_dir that all "
            "machines see."
        )
    frozen: dict[str, Any] = json.loads(path.read_bytes())
    allowed = not submitted or frozen["config"]["launcher"]["allow_changed_code"]
    # Before the rest is read: other code may have other keys.
    if not allowed and frozen["source"] != source_digest():
        raise InputError(
            "The code of pvt_bench has changed since the cell was submitted. Run the command of "
            "the sweep again, or submit with launcher.allow_changed_code=true."
        )
    register()
    config = OmegaConf.merge(OmegaConf.structured(Config), frozen.pop("config"))
    return typed(config), frozen


def run_cell(directory: Path, submitted: bool = True) -> Outcome:
    """Run the frozen cell of a record.

    submitted: see `thaw`. Whatever goes wrong before the run has its record open is noted there
    all the same.
    """
    try:
        config, frozen = thaw(directory, submitted)
        if config.mode in (Mode.train, Mode.test):
            spin_briefly()
        from pvt_bench.run import Placing, run

        placing = Placing(frozen["name"], frozen["tags"])
        outcome = run(config, frozen["dataset_line"], placing)
    except Exception as error:
        _note(directory, error)
        raise
    if outcome.directory != directory:
        raise InputError(
            f"{directory} was submitted, but its data or weights have changed since: they make it "
            f"the run {outcome.directory}."
        )
    return outcome


def _note(directory: Path, error: Exception) -> None:
    """Note in the record what went wrong before the run had it open; after that the run did."""
    # The record is another process's, or says it already.
    told = isinstance(error, AlreadyRunning | Interrupted)
    first = os.environ.get("RANK", "0") == "0"
    if told or not first or not (directory / "status.json").exists():
        return
    if read_status(directory)["state"] not in ("finished", "failed"):
        with suppress(AlreadyRunning), Record.reopen(directory) as record:
            record.update(state="failed", error=str(error))


class Submitted:
    """What submitit pickles, calls on the node, and resubmits after a preemption."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self) -> dict[str, float]:
        """Run the cell as one of the job's processes; its row."""
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        requeue = signal.getsignal(signal.SIGUSR2)
        try:
            return run_cell(self.directory).row
        except Interrupted as error:
            if error.signal != signal.SIGUSR2:
                raise
            # The checkpoint is written: now submitit may ask for another job, and end this one.
            assert callable(requeue)
            insist(lambda seconds: _requeue(requeue), LONG_PATIENCE_S)
            # Only on the first process does that end anything; the others wait to be ended by the
            # scheduler, since one that leaves would take the first with it.
            time.sleep(3600)
            raise

    def checkpoint(self) -> Any:
        """What submitit submits again: the same; where to go on from lies in the record."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Submitted(self.directory))


def _requeue(handler: Callable[..., Any]) -> None:
    try:
        handler(signal.SIGUSR2, None)
    except subprocess.SubprocessError as error:
        raise NoAnswer(str(error)) from error


def main() -> None:
    """Run the record of the directory that is typed; the exit codes are those of a run."""
    try:
        run_cell(Path(sys.argv[1]))
    except Exception as error:
        sys.exit(report(error))


if __name__ == "__main__":
    main()
