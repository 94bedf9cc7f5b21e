"""A record keeps one run: its identity, its status, its numbers, one process at a time."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pvt_bench.errors import InputError
from pvt_bench.tracking.environment import (
    environment,
    source_commit,
    source_dirty,
    source_version,
)
from pvt_bench.tracking.record import Record, find_records, read_status

CONFIG = {
    "seed": 0,
    "weights": None,
    "results_dir": "results",
    "model": {"name": "pvt_small", "sr_ratios": [8, 4, 2, 1], "drop_path": 0.1},
    "dataset": {"name": "digits", "root": "/data"},
    "optimizer": {"lr": 1e-4, "fused": True, "epochs": 12},
    "trainer": {"devices": 1, "precision": "32-true", "workers": 2},
}
LABEL = "coco_retinanet/digits/pvt_small-seed0"
KEY = "0123456789"


def changed(key: str, value: object) -> dict:
    config = copy.deepcopy(CONFIG)
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return config


def open_record(results_dir: Path, **options) -> Record:
    return Record.open(CONFIG, results_dir, LABEL, KEY, **options)


def test_a_record_is_found_by_identity_alone(tmp_path):
    with open_record(tmp_path) as record:
        first = record.directory
        assert first == tmp_path / "runs" / f"{LABEL}-{KEY}"
        assert record.status["state"] == "queued"
        record.begin()
        record.update(state="finished", result={"val/AP": 0.41})
    other_label = changed("trainer.devices", 4)
    with Record.open(other_label, tmp_path, "task/data/other label", KEY) as record:
        assert record.directory == first
        assert record.status["result"] == {"val/AP": 0.41}
        assert record.config == CONFIG, "the configuration is frozen"


def test_labels_are_safe_file_names(tmp_path):
    with Record.open(CONFIG, tmp_path, f"t/d/..pvt s='[4,2]' é{'x' * 300}", KEY) as record:
        assert record.directory.parent == tmp_path / "runs/t/d"
        assert record.directory.name.startswith("pvt_s=_4,2_")
        assert len(record.directory.name) < 200
    with pytest.raises(ValueError, match="three parts"):
        Record.open(CONFIG, tmp_path, "a/b", KEY)


def test_config_keeps_types(tmp_path):
    config = {"small": 1e-05, "text": "1e-5", "no": "no", "none": None, "list": [1, 2.5, "x"]}
    with Record.open(config, tmp_path, "a/b/c", KEY) as record:
        assert record.config == config
        assert [type(value) for value in record.config.values()] == [
            type(value) for value in config.values()
        ]


def test_attempts_and_errors_are_noted(tmp_path):
    with suppress(ZeroDivisionError), open_record(tmp_path) as record:
        directory = record.directory
        record.begin()
        _ = 1 / 0
    status = read_status(directory)
    assert (status["state"], status["attempt"], status["pid"]) == ("failed", 1, os.getpid())
    assert status["error"] == "ZeroDivisionError: division by zero"
    with suppress(KeyboardInterrupt), Record.reopen(directory) as record:
        record.begin()
        raise KeyboardInterrupt
    status = read_status(directory)
    assert (status["state"], status["attempt"]) == ("interrupted", 2)
    with Record.reopen(directory) as record:
        record.begin()
        assert record.status["error"] is None
        with pytest.raises(ValueError, match="state"):
            record.update(state="done")
    assert find_records(tmp_path) == [directory]
    with pytest.raises(InputError, match="not a record"):
        Record.reopen(tmp_path)


@pytest.mark.parametrize("change", [{"state": "done"}, {"attempt": None}])
def test_a_record_of_another_version_is_refused_and_can_be_started_over(tmp_path, change):
    with open_record(tmp_path) as record:
        directory = record.directory
    status = {**read_status(directory), **change}
    kept = {key: value for key, value in status.items() if value is not None}
    (directory / "status.json").write_text(json.dumps(kept))
    for open_again in (lambda: open_record(tmp_path), lambda: Record.reopen(directory)):
        with pytest.raises(InputError, match=r"version of pvt-bench.*rerun=true"):
            open_again()
    with open_record(tmp_path, rerun=True) as record:
        assert record.status["attempt"] == 0


def test_a_record_of_before_launchers_is_read(tmp_path):
    """What was added to the status since is not missed."""
    old = {"state": "finished", "created": "2026-01-01T00:00:00+00:00", "attempt": 1,
           "commit": None, "result": {"val/AP": 0.4}}  # fmt: skip
    with open_record(tmp_path) as record:
        directory = record.directory
    (directory / "status.json").write_text(json.dumps(old))
    with Record.reopen(directory) as record:
        assert record.status == old


def test_rerun_starts_over_and_names_the_old_mlflow_run(tmp_path):
    with open_record(tmp_path) as record:
        record.begin()
        record.log(1, {"train/loss": 1.0})
        (record.directory / "last.ckpt").write_bytes(b"old")
        record.update(state="finished", mlflow={"run_id": "first"})
    for run_id, superseded in [("second", ["first"]), ("third", ["first", "second"])]:
        with open_record(tmp_path, rerun=True) as record:
            assert record.status["superseded"] == superseded
            assert (record.status["state"], record.status["attempt"]) == ("queued", 0)
            assert "mlflow" not in record.status
            assert not list(record.points())
            assert not (record.directory / "last.ckpt").exists()
            record.update(mlflow={"run_id": run_id})
    assert find_records(tmp_path) == [record.directory]


def test_points_read_back_the_same(tmp_path):
    values = {"a": 0.1 + 0.2, "nan": math.nan, "up": math.inf, "down": -math.inf, "int": 3}
    with open_record(tmp_path) as record:
        record.log(1, values)
        text = (record.directory / "metrics.jsonl").read_text()
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        (point,) = record.points()
        assert point.step == 1
        assert abs(point.time - time.time()) < 60
        assert math.isnan(point.values.pop("nan"))
        del values["nan"]
        assert point.values == values
        with pytest.raises(ValueError, match="step"):
            record.log(2, {"step": 1.0})


def test_cut_drops_the_points_after_a_step(tmp_path):
    with open_record(tmp_path) as record:
        for step in range(1, 11):
            record.log(step, {"train/loss": 1 / step})
        before = list(record.points())
        record.cut(6)
        assert list(record.points()) == before[:6]
        record.log(7, {"train/loss": 0.0})
        assert [point.step for point in record.points()] == [1, 2, 3, 4, 5, 6, 7]


def test_a_line_cut_short_is_ignored_and_cut_off(tmp_path):
    with open_record(tmp_path) as record:
        record.log(1, {"train/loss": 1.0})
        record.log(2, {"train/loss": 0.5})
        path = record.directory / "metrics.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:20])
        assert [point.step for point in record.points()] == [1, 2]
    with open_record(tmp_path) as record:
        assert path.read_bytes() == whole
        record.log(3, {"train/loss": 0.2})
        assert [point.step for point in record.points()] == [1, 2, 3]
        path.write_bytes(b"?\n" + path.read_bytes())
        with pytest.raises(InputError, match=r"not a point: '[?]'"):
            list(record.points())


def test_a_full_disk_is_said_and_leaves_whole_lines(tmp_path):
    code = f"""
import resource, sys
from pathlib import Path
from pvt_bench.errors import InputError
from pvt_bench.tracking.record import Record
with Record.open({{}}, {str(tmp_path)!r}, "a/b/c", {KEY!r}) as record:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    for step in range(100):
        try:
            record.log(step, {{"train/loss": 0.25}})
        except InputError as error:
            print(error)
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    record.log(step, {{"train/loss": 0.25}})
    assert [point.step for point in record.points()] == list(range(step + 1)), step
    assert 5 < step < 50
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "results_dir=PATH" in answer.stdout


HOLDER = """
import sys, time
from pvt_bench.tracking.record import Record
record = Record.reopen(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


def test_one_process_at_a_time(tmp_path):
    with open_record(tmp_path) as record:
        directory = record.directory
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "open\n"
        for rerun in (False, True):
            with pytest.raises(InputError, match=rf"already running \(pid {holder.pid}, host .*T"):
                open_record(tmp_path, rerun=rerun)
        with Record.open(changed("seed", 1), tmp_path, LABEL, "9876543210") as other:
            assert other.directory != directory
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with open_record(tmp_path) as record:
            assert record.directory == directory
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"results_dir=PATH.*PVT_BENCH_RESULTS") as error:
        open_record(tmp_path / "file")
    assert str(tmp_path / "file") in str(error.value)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "coco_retinanet").write_text("in the way")
    with pytest.raises(InputError, match="coco_retinanet"):
        open_record(tmp_path)
    (tmp_path / "runs" / "coco_retinanet").unlink()
    with open_record(tmp_path):
        pass


def test_environment_names_versions_and_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    found = environment()
    assert found["slurm_job_id"] == "17"
    assert found["packages"]["pvt-bench"]
    assert found["packages"]["numpy"].count(".") >= 2
    json.dumps(found)

    def git(*arguments: str) -> str:
        identity_of = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity_of, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert source_commit(tmp_path) is None
    assert source_dirty(tmp_path) is None
    assert source_version(tmp_path) is None
    git("init")
    code = tmp_path / "pvt_bench" / "a.py"
    code.parent.mkdir()
    code.write_text("1")
    git("add", "pvt_bench")
    git("commit", "-m", "a")
    assert source_commit(tmp_path) == git("rev-parse", "HEAD")
    assert source_dirty(tmp_path) is False
    assert source_version(tmp_path) == source_commit(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "report.md").write_text("a report")
    assert source_dirty(tmp_path) is False
    code.write_text("2")
    assert source_dirty(tmp_path) is True
    assert source_version(tmp_path) == f"{source_commit(tmp_path)}-dirty"


def test_records_import_neither_torch_nor_mlflow():
    code = (
        "import sys, pvt_bench.tracking.record, pvt_bench.tracking.mlflow;"
        "pvt_bench.tracking.addresses.check_uri('http://host:5000');"
        "print({'torch', 'lightning', 'mlflow'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "set()", answer.stderr
