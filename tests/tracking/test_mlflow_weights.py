"""Weights go to MLflow where `tracking.weights=true` asks for them, and make no other run."""

import json
from pathlib import Path

from conftest import Command
from mlflow import MlflowClient
from test_mlflow_mirror import history
from test_run import mlflow_runs
from test_sync import sync

from pvt_bench.tracking.addresses import default_uri

TRAIN = (
    "model=lenet5", "task=imagenet_classification", "schedule.steps=1", "trainer=cpu",
    "schedule.batch_size=2", "trainer.workers=0", "trainer.eval_batch_size=64",
)  # fmt: skip
WEIGHTS = "weights.safetensors"


def sizes(results: Path) -> dict[str, int]:
    """Sizes of the run's artifacts by name."""
    (run,) = mlflow_runs(results)
    found = MlflowClient(default_uri(results)).list_artifacts(run.info.run_id)
    return {each.path: each.file_size for each in found}


def test_weights_go_to_mlflow_where_they_are_asked_for(command: Command, tmp_path: Path) -> None:
    results = tmp_path / "results"
    plain = command(*TRAIN)
    assert plain.returncode == 0, plain.stderr
    assert WEIGHTS not in sizes(results)
    (weights,) = results.glob(f"runs/*/*/*/{WEIGHTS}")

    asked = command(*TRAIN, "tracking.weights=true")
    assert asked.returncode == 0, asked.stderr
    assert "finished before" in asked.stdout
    assert sizes(results)[WEIGHTS] == weights.stat().st_size
    (run,) = mlflow_runs(results)
    assert run.info.status == "FINISHED"
    assert history(default_uri(results), run.info.run_id, "cost/params_m")[0][0] == 0


def test_weights_that_a_dead_server_did_not_take_are_sent_by_sync(
    command: Command, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    done = command(*TRAIN, "tracking.weights=true", "tracking.uri=http://127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    assert "does not take the run" in done.stderr
    (path,) = results.glob("runs/*/*/*/status.json")
    status = json.loads(path.read_text())
    assert (status["mirrored"], status["mirrored_weights"]) == (False, False)
    assert sync(tmp_path).returncode == 1
    for _ in range(2):
        sent = sync(tmp_path, f"uri={default_uri(results)}")
        assert sent.returncode == 0, sent.stderr
        assert sizes(results)[WEIGHTS] == path.with_name(WEIGHTS).stat().st_size
    assert json.loads(path.read_text())["mirrored_weights"]


def test_a_store_that_takes_no_weights_ends_the_run_all_the_same(
    command: Command, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    assert command(*TRAIN).returncode == 0
    (run,) = mlflow_runs(results)
    artifacts = results / "mlflow-artifacts" / "imagenet_classification" / run.info.run_id
    # A folder where the file is to lie.
    (artifacts / "artifacts" / WEIGHTS / WEIGHTS).mkdir(parents=True)
    refused = command(*TRAIN, "tracking.weights=true")
    assert refused.returncode == 0, refused.stderr
    assert "does not take the run" in refused.stderr
    assert mlflow_runs(results)[0].info.status == "FINISHED"

    (artifacts / "artifacts" / WEIGHTS / WEIGHTS).rmdir()
    (artifacts / "artifacts" / WEIGHTS).rmdir()
    assert sync(tmp_path).returncode == 0
    assert sizes(results)[WEIGHTS] > 0
