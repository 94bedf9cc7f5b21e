"""What a dead server missed is sent, and a lost store is rebuilt from the records."""

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import mlflow
import pytest
from conftest import Command, environment
from mlflow.entities import Run

WORDS = ("task=imagenet_classification", "mode=cost")
NOWHERE = "tracking.uri=http://127.0.0.1:1"


def sync(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pvt_bench.sync", *words]
    return subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )


def runs(tmp_path: Path) -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments))


def told(run: Run) -> tuple[object, ...]:
    """What does not depend on when and where the run was sent."""
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    return run.info.run_name, run.info.status, run.data.metrics, run.data.params, tags


def test_what_a_dead_server_missed_is_sent_and_a_lost_store_is_rebuilt(
    command: Command, tmp_path: Path
) -> None:
    done = command("-m", "model=resnet18,lenet5", *WORDS, NOWHERE)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "results" / "mlflow.db").exists()

    still_dead = sync(tmp_path)
    assert still_dead.returncode == 1
    assert "0 of 2 runs are in MLflow" in still_dead.stdout

    store = f"uri=sqlite:///{tmp_path / 'results' / 'mlflow.db'}"
    sent = sync(tmp_path, store)
    assert sent.returncode == 0, sent.stderr
    assert "2 of 2 runs are in MLflow" in sent.stdout
    first = {run.info.run_name: run for run in runs(tmp_path)}
    assert first["resnet18"].data.metrics["cost/params_m"] == pytest.approx(11.69, abs=0.01)
    assert "params" in first["resnet18"].data.tags["mlflow.note.content"]
    (parent,) = (run for run in first.values() if run.data.tags.get("kind") == "sweep")
    assert parent.info.status == "FINISHED"
    children = [first[name].data.tags["mlflow.parentRunId"] for name in ("resnet18", "lenet5")]
    assert set(children) == {parent.info.run_id}

    for file in (tmp_path / "results").glob("mlflow.db*"):
        file.unlink()
    rebuilt = sync(tmp_path)
    assert rebuilt.returncode == 0, rebuilt.stderr
    again = {run.info.run_name: run for run in runs(tmp_path)}
    assert again.keys() == first.keys()
    for name, run in again.items():
        assert told(run) == told(first[name])
    for name in ("resnet18", "lenet5"):
        (path,) = (tmp_path / "results").glob(f"runs/*/*/{name}-*/status.json")
        began = datetime.fromisoformat(json.loads(path.read_text())["started"])
        times = [(run[name].info.start_time, run[name].info.end_time) for run in (first, again)]
        assert times[0] == times[1]
        assert times[0][0] == began.timestamp() * 1000
        assert times[0][0] <= times[0][1] + 1000 < 1000 * time.time()
    (parent,) = (run for run in again.values() if run.data.tags.get("kind") == "sweep")
    assert again["lenet5"].data.tags["mlflow.parentRunId"] == parent.info.run_id

    before = {run.info.run_id for run in again.values()}
    assert sync(tmp_path).returncode == 0
    assert {run.info.run_id for run in runs(tmp_path)} == before

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "results").rename(elsewhere / "results")
    for file in (elsewhere / "results").glob("mlflow.db*"):
        file.unlink()
    moved = sync(tmp_path, f"results_dir={elsewhere / 'results'}")
    assert moved.returncode == 0, moved.stderr
    assert not (tmp_path / "results").exists()
    there = {run.info.run_name: run for run in runs(elsewhere)}
    assert there.keys() == first.keys()
    (parent,) = (run for run in there.values() if run.data.tags.get("kind") == "sweep")
    assert there["lenet5"].data.tags["mlflow.parentRunId"] == parent.info.run_id


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("uro=x",), "Did you mean uri"),
        (("uri=file:x",), "MLflow no longer logs to plain directories"),
        (("results_dir=nowhere",), "There is no directory"),
    ],
)
def test_what_cannot_be_used_is_told(words: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    done = sync(tmp_path, *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
