"""What a dead server missed is sent, and a lost store is rebuilt from the records."""

import json
import subprocess
import time
from datetime import datetime
from pathlib import Path

import mlflow
import pytest
from conftest import Command, environment
from forking import run_forked
from mlflow.entities import Run

from pvt_bench.tracking.addresses import default_uri

WORDS = ("task=imagenet_classification", "mode=cost")
NOWHERE = "tracking.uri=http://127.0.0.1:1"


def light(tmp_path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with these words."""
    module, *typed = words
    return run_forked(typed, tmp_path, environment(**more), 120, module)


def sync(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return light(tmp_path, "pvt_bench.sync", *words)


def runs(results_dir: Path) -> list[Run]:
    client = mlflow.MlflowClient(default_uri(results_dir))
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
    first = {run.info.run_name: run for run in runs(tmp_path / "results")}
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
    again = {run.info.run_name: run for run in runs(tmp_path / "results")}
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
    assert {run.info.run_id for run in runs(tmp_path / "results")} == before

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "results").rename(elsewhere / "results")
    for file in (elsewhere / "results").glob("mlflow.db*"):
        file.unlink()
    moved = sync(tmp_path, f"results_dir={elsewhere / 'results'}")
    assert moved.returncode == 0, moved.stderr
    assert not (tmp_path / "results").exists()
    there = {run.info.run_name: run for run in runs(elsewhere / "results")}
    assert there.keys() == first.keys()
    (parent,) = (run for run in there.values() if run.data.tags.get("kind") == "sweep")
    assert there["lenet5"].data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_any_place_and_the_store_of_the_environment(command: Command, tmp_path: Path) -> None:
    """A results_dir of signs: training, sweep, sync, status and report; then MLflow's variables."""
    place = tmp_path / "a#b?c%20 &=:;é\n\\'{x}[1],$(y)~"
    here = {"PVT_BENCH_RESULTS": str(place)}
    train = (
        *("model=lenet5", "task=imagenet_classification", "schedule.steps=1", "trainer=cpu"),
        *("schedule.batch_size=2", "trainer.workers=0", "trainer.eval_batch_size=64"),
    )
    alone = command(*train, **here)
    assert alone.returncode == 0, alone.stderr
    swept = command("-m", *train, "seed=0,1", **here)
    assert swept.returncode == 0, swept.stderr
    (place / "mlflow.db").unlink()
    for name, expected in (("sync", "2 of 2 runs"), ("status", "2 done"), ("report", "lenet5")):
        words = [f"pvt_bench.{name}", f"results_dir={place}"]
        words += ["formats=md"] if name == "report" else []
        done = light(tmp_path, *words)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    # MLflow makes a folder with the escapes of the address, which does not stay.
    assert {path.name for path in tmp_path.iterdir()} == {place.name}
    runs_there = runs(place)
    changed = "steps=1 batch_size=2"
    assert {run.info.run_name for run in runs_there} >= {
        f"lenet5 seed0 {changed}",
        f"lenet5 seed1 {changed}",
    }
    artifacts = place / "mlflow-artifacts" / "imagenet_classification"
    for run in runs_there:
        assert run.info.status == "FINISHED"
        assert list((artifacts / run.info.run_id / "artifacts").iterdir())

    exported = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mine/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": "mine",
    }
    for words in (["model=lenet5"], ["-m", "model=lenet5,resnet18"]):
        done = command(*words, *WORDS, **here, **exported)
        assert done.returncode == 0, done.stderr
        assert f"MLflow: {exported['MLFLOW_TRACKING_URI']} (MLFLOW_TRACKING_URI is" in done.stdout
        assert "MLFLOW_EXPERIMENT_NAME ignored" in done.stdout
    kinds = [run.data.tags.get("kind") for run in runs(tmp_path / "mine")]
    assert sorted(kinds, key=str) == [None, None, "sweep"]
    (path,) = place.glob("runs/*/cost/lenet5-*/status.json")
    status = json.loads(path.read_text())
    assert status["mlflow"]["uri"] == exported["MLFLOW_TRACKING_URI"]
    # A run that was logged nowhere goes to the exported store, too.
    del status["mlflow"]
    path.write_text(json.dumps(status))
    (tmp_path / "mine" / "mlflow.db").unlink()
    sent = light(tmp_path, "pvt_bench.sync", f"results_dir={place}", **exported)
    assert sent.returncode == 0, sent.stderr
    assert "MLFLOW_TRACKING_URI is set" in sent.stdout
    assert "lenet5" in {run.info.run_name for run in runs(tmp_path / "mine")}


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
