"""Two processes that work on one run, which locks alone do not keep apart."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Command, environment, needs, wait
from forking import Forked
from safetensors.torch import load_file
from sweeping import losses_in

from pvt_bench.tracking import heartbeat, holder
from pvt_bench.tracking.lease import AlreadyRunning, Lease, TakenOver
from pvt_bench.tracking.metrics import MetricsFile
from pvt_bench.tracking.record import HEARTBEAT, Record, read_status

WRITER = """
import sys, time
from pvt_bench.tracking.record import Record
with Record.open({"seed": 0}, sys.argv[1], "task/data/a", "0123456789") as record:
    record.begin()
    for step in range(1, 10**6):
        record.log(step, {"train/loss": step})
        time.sleep(0.01)
"""


def open_record(results: Path) -> Record:
    return Record.open({"seed": 0}, results, "task/data/a", "0123456789")


def pause(pid: int, record: Path) -> None:
    """Freeze a process for longer than its heartbeat is waited for, on a disk without locks."""
    os.kill(pid, signal.SIGSTOP)
    long_ago = time.time() - 2 * heartbeat.LOST_AFTER_S
    os.utime(record / HEARTBEAT, (long_ago, long_ago))
    key = record.name.rpartition("-")[2]
    (record.parents[2] / ".locks" / f"{key}.lock").unlink()


def test_who_was_frozen_writes_nothing_more(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    frozen = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait(lambda: list(tmp_path.glob("runs/*/*/*/metrics.jsonl")), "a first point")
    (directory,) = (path.parent for path in tmp_path.glob("runs/*/*/*/metrics.jsonl"))
    wait(lambda: len(losses_in(directory)) > 5, "five points")
    pause(frozen.pid, directory)
    with open_record(tmp_path) as record:
        record.cut(3)
        record.begin()
        record.log(4, {"train/loss": 4.0})
        os.kill(frozen.pid, signal.SIGCONT)
        _, told = frozen.communicate(timeout=60)
        assert frozen.returncode == 1
        assert (
            f"taken over by another process (pid {os.getpid()}, host {os.uname().nodename}" in told
        )
        assert (directory / HEARTBEAT).exists()
        record.log(5, {"train/loss": 5.0})
    assert list(losses_in(directory)) == [1, 2, 3, 4, 5]
    status = read_status(directory)
    assert (status["state"], status["attempt"], status["pid"]) == ("running", 2, os.getpid())


def test_a_training_that_was_taken_over(
    command: Command, tmp_path: Path, results: Path, digits: Path
) -> None:
    """The one that took over ends as if it had been alone; the other one stops and says why."""
    words = (
        "model=pvt_small", *SMALL, "task=imagenet_classification", "trainer=cpu",
        "trainer.workers=0", "trainer.log_every=1", "trainer.checkpoint_every=5",
        "schedule.batch_size=4", "schedule.steps=60", f"dataset.root={digits}",
    )  # fmt: skip
    frozen = Forked(words, tmp_path, environment(OMP_NUM_THREADS="1"))
    wait(lambda: list(results.glob("runs/*/*/*/metrics.jsonl")), "a first point")
    (record,) = (path.parent for path in results.glob("runs/*/*/*/metrics.jsonl"))
    wait(lambda: len(losses_in(record)) > 6, "the seventh step")
    pause(frozen.pid, record)
    second = command(*words, OMP_NUM_THREADS="1")
    assert second.returncode == 0, second.stderr
    weights = load_file(record / "weights.safetensors")
    os.kill(frozen.pid, signal.SIGCONT)
    told, _ = frozen.communicate(60)
    assert frozen.returncode == 2, told
    assert "was taken over by another process" in told
    assert "Traceback" not in told
    assert list(losses_in(record)) == list(range(1, 61))
    status = read_status(record)
    assert (status["state"], status["attempt"]) == ("finished", 2)
    left = load_file(record / "weights.safetensors")
    assert all(torch.equal(left[name], weights[name]) for name in weights)
    assert not (record / "checkpoints").exists()


def test_two_that_take_a_lease_at_once(tmp_path: Path) -> None:
    """The one that wrote first has lost it; a lease that is gone or damaged is nobody else's."""
    first, second = (Lease(tmp_path / "run.json") for _ in range(2))
    first.take()
    second.take()
    assert second.token > first.token
    with pytest.raises(TakenOver):
        first.check()
    second.check()
    for content in (None, b"", b"[]", b"\0" * 99):
        if content is None:
            second.path.unlink()
        else:
            second.path.write_bytes(content)
        assert second.is_held()
        second.check()
        assert second.last["token"] == second.token


def test_a_point_from_the_middle_of_a_write_is_ignored(tmp_path: Path) -> None:
    """What was checked before the takeover, and written after it."""
    with open_record(tmp_path) as first:
        for step in range(1, 5):
            first.log(step, {"train/loss": step})
        late = MetricsFile(first.metrics.path, first.metrics.token)
    with open_record(tmp_path) as record:
        record.cut(3)
        late.append(9, {"train/loss": 9.0})
        record.log(4, {"train/loss": 4.0})
        late.append(10, {"train/loss": 10.0})
        record.log(5, {"train/loss": 5.0})
        steps = [point.step for point in record.points()]
        assert steps == [1, 2, 3, 4, 5]
        assert record.metrics.tail()[-1].step == 5
        record.cut(4)
    assert b"10.0" not in first.metrics.path.read_bytes()
    assert list(losses_in(first.directory)) == [1, 2, 3, 4]


def test_steps_that_two_processes_wrote_are_mended(tmp_path: Path) -> None:
    with open_record(tmp_path) as record:
        for step in (1, 2, 3, 2, 3, 4, 5, 4):
            record.log(step, {"train/loss": step})
        record.log(3, {"val/AP": 0.5})
        directory = record.directory
    with open_record(tmp_path) as record:
        record.cut(4)
        points = [(point.step, *point.values) for point in record.points()]
    assert points == [
        (1, "train/loss"), (2, "train/loss"), (3, "train/loss"), (3, "val/AP"), (4, "train/loss"),
    ]  # fmt: skip
    assert list(losses_in(directory)) == [1, 2, 3, 4]


def test_clocks_that_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat is heard, however wrong the clock of the machine that listens."""
    beats = heartbeat.Heartbeat(tmp_path / HEARTBEAT, lambda: True, every=0.1)
    wait((tmp_path / HEARTBEAT).exists, "the first beat")
    now = time.time()
    try:
        for apart in (-86400, 86400):
            monkeypatch.setattr(heartbeat.time, "time", lambda apart=apart: now + apart)
            assert heartbeat.is_beating(tmp_path / HEARTBEAT)
    finally:
        beats.stop()
    assert not list(tmp_path.iterdir())


DESCRIBE = (
    "import json; from pvt_bench.tracking import holder; print(json.dumps(holder.describe()))"
)


def in_a_container(code: str, *words: str) -> Any:
    """What a process prints that is number 1 of a container of its own, as JSON."""
    command = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(
        [*command, sys.executable, "-c", code, *words], capture_output=True, text=True
    )
    needs(done.returncode == 0, f"unshare --pid ({done.stderr.strip()})")
    return json.loads(done.stdout)


def test_number_1_of_a_container_is_not_that_of_the_next(tmp_path: Path) -> None:
    gone = in_a_container(DESCRIBE)
    assert gone["pid"] == 1
    assert holder.is_alive(gone) is None
    ask = "import json, sys; from pvt_bench.tracking import holder;"
    ask += "print(json.dumps(holder.is_alive(json.loads(sys.argv[1]))))"
    assert in_a_container(ask, json.dumps(gone)) is not True
    # As descriptions were before: the name of the host and the number.
    assert in_a_container(ask, json.dumps({"host": gone["host"], "pid": 1})) is True


def test_a_cell_that_a_container_left_queued_is_started(tmp_path: Path) -> None:
    from pvt_bench.launching.preparing import _waits

    gone = {"launcher": "local", **in_a_container(DESCRIBE)}
    assert not _waits({"state": "queued", "launch": gone})
    assert _waits({"state": "queued", "launch": {"launcher": "local", **holder.describe()}})


def test_who_is_alive() -> None:
    mine = holder.describe()
    assert holder.is_alive(mine) is True
    assert holder.is_this(mine)
    assert holder.is_alive(mine | {"began": mine["began"] - 1}) is False
    assert holder.is_alive(mine | {"boot": "another"}) is None
    assert holder.is_alive({"host": mine["host"], "pid": mine["pid"]}) is True
    child = subprocess.Popen(["true"])
    ended = holder.describe(child.pid)
    wait(lambda: holder.is_alive(ended) is False, "a process that waits to be reaped")
    child.wait()
    assert holder.is_alive(ended) is False
    for pid in (None, [], "1", 0, -1, 1 << 31, 10**400, 1.5):
        assert holder.is_alive(mine | {"pid": pid}) is None


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[1]", b'"a"', b'{"pid": 1e999}', b"\xff", None]
)
def test_a_lock_holder_that_cannot_be_read_stops_nobody(
    content: bytes | None, tmp_path: Path
) -> None:
    with open_record(tmp_path) as record:
        path = tmp_path / "runs" / ".locks" / f"{record.identity}.json"
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
            open_record(tmp_path)
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with open_record(tmp_path) as record:
        record.log(1, {"train/loss": 1.0})
    assert json.loads(path.read_bytes())["pid"] == os.getpid()
