"""A training under a random sequence of faults, until it is done: nothing may be lost or doubled.

`unshare --mount --map-root-user python tests/torture.py LAUNCHER FIRST STOP`, with tests/ and
tests/launching/ in PYTHONPATH, tries the seeds from FIRST up to STOP, on a disk of its own that it
can fill. Each seed prints a line with its faults.
"""

import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from conftest import SMALL, environment
from forking import Forked
from safetensors.torch import load_file
from sweeping import losses_in, runs_in

from pvt_bench.datasets.digits.reader import write_digits
from pvt_bench.errors import InputError
from pvt_bench.sync import main as sync
from pvt_bench.tracking import holder
from pvt_bench.tracking.heartbeat import HEARTBEAT, LOST_AFTER_S
from pvt_bench.tracking.reading import read_status

STEPS = 150
FAULTS = 5
DISK_MB = 96
WORDS = (
    "model=pvt_small", *SMALL, "task=imagenet_classification", "trainer=cpu", "trainer.log_every=1",
    "trainer.checkpoint_every=15", "schedule.batch_size=4", f"schedule.steps={STEPS}",
)  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
DAMAGE: tuple[Callable[[Path], object], ...] = (
    lambda path: path.write_bytes(b""),
    lambda path: os.truncate(path, path.stat().st_size // 2),
    lambda path: path.write_bytes(os.urandom(1000)),
)


class Torture:
    """One seed: a results_dir, the command, and what is done to both."""

    def __init__(self, seed: int, place: Path, words: tuple[str, ...]) -> None:
        self.draw = random.Random(seed)
        self.place = place
        self.words = words
        self.results = place / "results"
        self.done: list[str] = []
        self.outputs: list[str] = []

    @property
    def record(self) -> Path | None:
        """The record, once there is one."""
        return next((path.parent for path in self.results.glob("runs/*/*/*/status.json")), None)

    def start(self) -> Forked:
        """Run the command."""
        return Forked(self.words, self.place, environment())

    def end(self, command: Forked) -> int | None:
        """Wait for the end of the command; its exit code."""
        if command.returncode is None or command.outputs[0].exists():
            self.outputs.append(command.communicate(180)[0])
        return command.returncode

    def wait_for_a_moment(self, command: Forked) -> None:
        """Let the command come to some point between its start and its end."""
        step = self.step() + self.draw.randrange(-10, STEPS // FAULTS + 10)
        delay = self.draw.choice([0, 0.1, 1])
        until = time.monotonic() + 60
        while command.returncode is None and time.monotonic() < until and self.step() < step:
            time.sleep(0.01)
        time.sleep(delay)

    def step(self) -> int:
        """The last step that was logged."""
        return max(losses_in(self.record), default=0) if self.record else 0

    def pids(self, command: Forked) -> list[int]:
        """The command, and the process that trains where it is another."""
        pids = [command.pid]
        with suppress(InputError, FileNotFoundError, KeyError):
            if self.record:
                pids.append(read_status(self.record)["pid"])
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def is_at_work(self, record: Path) -> bool:
        """Whether the process that trains is there, or is about to come."""
        status = read_status(record)
        launch = holder.is_alive(status.get("launch") or {})
        return launch is True or Path(f"/proc/{status.get('pid')}").exists()

    def strike(self) -> None:
        """Run the command and do something to it, or to what it writes."""
        fault = self.draw.choice([self.signal, self.signal, self.freeze, self.fill, self.store])
        command = self.start()
        self.wait_for_a_moment(command)
        fault(command)
        self.end(command)

    def signal(self, command: Forked) -> None:
        """Send a signal to one of its processes, or to all."""
        number, pids = self.draw.choice(SIGNALS), self.pids(command)
        self.done.append(f"{number.name} at {self.step()}")
        for pid in self.draw.choice([pids, pids[:1], pids[-1:]]):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self, command: Forked) -> None:
        """Stop the one that trains, let another command take over, and let it go on."""
        pid = self.pids(command)[-1:]
        self.done.append(f"freeze at {self.step()}")
        for each in pid:
            os.kill(each, signal.SIGSTOP)
        if self.draw.random() < 0.5 and self.record and (self.record / HEARTBEAT).exists():
            self.done[-1] += " with a takeover"
            long_ago = time.time() - 2 * LOST_AFTER_S
            os.utime(self.record / HEARTBEAT, (long_ago, long_ago))
            for lock in (self.results / "runs" / ".locks").glob("*.lock"):
                lock.unlink()
            other = self.start()
            self.wait_for_a_moment(other)
            for each in pid:
                os.kill(each, signal.SIGCONT)
            self.end(other)
        else:
            time.sleep(self.draw.uniform(0, 1))
            for each in pid:
                os.kill(each, signal.SIGCONT)

    def fill(self, command: Forked) -> None:
        """Leave some kilobytes of the disk, until the command has ended."""
        free = shutil.disk_usage(self.place).free
        left = self.draw.choice([0, 10_000, 100_000, 1_000_000])
        self.done.append(f"{left} bytes left at {self.step()}")
        ballast = self.place / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - left))
        self.end(command)
        ballast.unlink()

    def store(self, command: Forked) -> None:
        """Lose, damage or hold the store of MLflow."""
        database = self.results / "mlflow.db"
        what = self.draw.choice(["lost", "damaged", "held"])
        self.done.append(f"store {what} at {self.step()}")
        if not database.exists():
            return
        if what == "held":
            with suppress(sqlite3.Error), sqlite3.connect(database, timeout=5) as held:
                held.execute("begin exclusive")
                time.sleep(2)
        elif what == "lost":
            database.unlink()
        else:
            self.draw.choice(DAMAGE)(database)

    def plant(self) -> None:
        """Put or damage files while nothing runs; a cell may outlive its command."""
        record = self.record
        if record is None or self.is_at_work(record):
            return
        what = self.draw.choice(["nothing", "one", "both", "future", "holder", "line", "beside"])
        self.done.append(f"planted: {what}")
        checkpoints = sorted((record / "checkpoints").glob("*.ckpt"), reverse=True)
        for path in checkpoints[: {"one": 1, "both": 2}.get(what, 0)]:
            self.draw.choice(DAMAGE)(path)
        if what == "future" and checkpoints:
            (record / "checkpoints" / "step-99999999.ckpt").write_bytes(b"what is this")
        if what == "holder":
            for path in (self.results / "runs" / ".locks").glob("*.json"):
                path.write_bytes(self.draw.choice([b"", b"[]", b'{"pid": 1e400}', b"\0" * 200]))
        if what == "line" and (record / "metrics.jsonl").exists():
            with (record / "metrics.jsonl").open("ab") as file:
                file.write(b'{"step": 3, "time": 17')
        if what == "beside":
            (record / ".status.json.01234567.new").write_bytes(b"{")

    def run(self) -> None:
        """Let all happen, and then let it come to its end."""
        for _ in range(FAULTS):
            self.strike()
            self.plant()
        for _ in range(3):
            if self.end(self.start()) == 0:
                break


def check(torture: Torture, expected: Path) -> None:
    """What is left is what an undisturbed run leaves."""
    record = torture.record
    assert record is not None
    status = read_status(record)
    assert status["state"] == "finished", (status, torture.outputs[-1])
    assert sync([f"results_dir={torture.results}"]) == 0
    assert status["result"]["val/top1"] == read_status(expected)["result"]["val/top1"]
    weights, whole = (load_file(each / "weights.safetensors") for each in (record, expected))
    assert weights.keys() == whole.keys()
    assert all(torch.equal(weights[name], whole[name]) for name in whole)
    assert list(losses_in(record)) == list(range(1, STEPS + 1))
    assert {path.name for path in record.iterdir()} == {
        path.name for path in expected.iterdir()
    } | ({"launch.json"} if (record / "launch.json").exists() else set())
    check_store(torture.results)
    for output in torture.outputs:
        assert "Traceback" not in output, output


def check_store(results: Path) -> None:
    """One run, finished, with each step once."""
    import mlflow

    runs: list[Any] = [run for run in runs_in(results) if "kind" not in run.data.tags]
    assert [run.info.status for run in runs] == ["FINISHED"]
    client = mlflow.MlflowClient(f"sqlite:///{results}/mlflow.db")
    history = client.get_metric_history(runs[0].info.run_id, "train/loss")
    assert sorted(point.step for point in history) == list(range(1, STEPS + 1))


def main() -> int:
    """Try the seeds that are typed; the exit code."""
    # The fork server is told when it starts: sums depend on the number of threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    launcher, first, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder], check=True
        )
        write_digits(disk / "digits")
        words = (*WORDS, f"dataset.root={disk / 'digits'}")
        whole = Torture(0, disk / "whole", words)
        whole.place.mkdir()
        assert whole.end(whole.start()) == 0, whole.outputs
        assert whole.record is not None
        for seed in range(first, stop):
            place = disk / f"seed{seed}"
            place.mkdir()
            torture = Torture(seed, place, (*words, f"launcher={launcher}"))
            began = time.monotonic()
            try:
                torture.run()
                check(torture, whole.record)
                verdict = "held"
            except Exception as error:
                failed += 1
                lines = itertools.chain.from_iterable(each.splitlines() for each in torture.outputs)
                shown = [*lines, *traceback.format_exc().splitlines()]
                verdict = f"FAILED: {error!r}\n" + "\n".join(f"    {line}" for line in shown)
            seconds = time.monotonic() - began
            print(
                f"{launcher} {seed}: {seconds:.0f} s: {', '.join(torture.done)}: {verdict}",
                flush=True,
            )
            shutil.rmtree(place)
        subprocess.run(["umount", "--lazy", folder], check=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
