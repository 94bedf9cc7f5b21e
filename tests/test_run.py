"""Whole runs through the real command, on a PVT small enough to train in seconds."""

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from coco_tree import write_coco_tree
from conftest import SMALL, Command, environment, wait
from forking import Forked
from safetensors.torch import load_file

from pvt_bench.tracking.metrics import MetricsFile

SETTINGS = ("model=pvt_small", *SMALL, "schedule.batch_size=4", "trainer=cpu")
RUN = ("task=coco_retinanet", *SETTINGS)
# What any task does alike is shown on the one whose steps take the least time.
QUICK = ("task=imagenet_classification", *SETTINGS)
TASKS = pytest.mark.parametrize(
    "words", [QUICK, pytest.param(RUN, marks=pytest.mark.slow)], ids=lambda words: words[0]
)


def records(results: Path) -> list[Path]:
    return sorted(path.parent for path in results.glob("runs/*/*/*/status.json"))


def status(record: Path) -> dict[str, Any]:
    return json.loads((record / "status.json").read_text())


def only_record(tmp_path: Path) -> Path:
    (record,) = records(tmp_path / "results")
    return record


def mlflow_runs(results: Path) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    found = client.search_experiments()
    return list(client.search_runs([each.experiment_id for each in found]))


def mlflow_steps(results: Path, run_id: str, metric: str) -> list[int]:
    client = mlflow.MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    return sorted(point.step for point in client.get_metric_history(run_id, metric))


def start(tmp_path: Path, *words: str) -> Forked:
    return Forked(words, tmp_path, environment(OMP_NUM_THREADS="1"))


def wait_for_step(tmp_path: Path, step: int) -> None:
    def reached() -> bool:
        found = records(tmp_path / "results")
        points = list(MetricsFile(found[0] / "metrics.jsonl").read()) if found else []
        return bool(points) and points[-1].step >= step

    wait(reached, f"step {step}")


def test_one_run_from_the_command_to_the_row(
    command: Command, tmp_path: Path, digits: Path
) -> None:
    words = (*RUN, f"dataset.root={digits}", "schedule.steps=6", "trainer.log_every=2")
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dataset: digits at ")
    for column in ("model", "dataset", "params", "GFLOPs", "AP50", "AP75", "APs", "APm", "APl"):
        assert column in done.stdout
    record = only_record(tmp_path)
    assert status(record)["state"] == "finished"
    assert {path.name for path in record.iterdir()} == {
        "config.yaml",
        "costs.csv",
        "description.md",
        "environment.json",
        "log.txt",
        "metrics.jsonl",
        "mlflow.json",
        "per_class.csv",
        "pictures",
        "precision_recall.csv",
        "predictions.json",
        "status.json",
        "weights.safetensors",
    }
    (run,) = mlflow_runs(tmp_path / "results")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["val/AP"] == status(record)["result"]["val/AP"]
    assert run.data.metrics["cost/gflops"] > 1
    # Beside the protocol's: what was trained, and what a scene of 96 x 96 pixels takes.
    trained = sum(tensor.numel() for tensor in load_file(record / "weights.safetensors").values())
    assert run.data.metrics["cost/own_params_m"] == pytest.approx(trained / 1e6)
    share = run.data.metrics["cost/own_gflops"] / run.data.metrics["cost/gflops"]
    assert share < (96 * 96) / (800 * 1280)
    own = "10 classes at 96 x 96 pixels"
    assert f"This run's own network, {own}: {trained / 1e6:.1f} M, " in done.stdout
    assert f"**own network**: {own}" in run.data.tags["mlflow.note.content"]
    assert run.data.params["model.depths"] == "[1, 1, 1, 1]"
    assert run.data.tags["model"] == "pvt_small"
    assert "**dataset**: digits" in run.data.tags["mlflow.note.content"]
    assert f"&run_uuid={run.info.run_id}" in run.data.tags["mlflow.note.content"]
    inputs = run.inputs.dataset_inputs
    assert {each.dataset.name for each in inputs} == {"digits train", "digits val"}
    assert run.data.metrics["train/images_seen"] == 6 * int(run.data.params["schedule.batch_size"])
    assert 0 <= run.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert mlflow_steps(tmp_path / "results", run.info.run_id, "train/loss") == [2, 4, 6]
    # One table instead of a chart of each part; the main ones at step 0, where MLflow draws bars.
    assert mlflow_steps(tmp_path / "results", run.info.run_id, "cost/gflops") == [0]
    costs = {name for name in run.data.metrics if name.startswith("cost/")}
    assert costs == {"cost/params_m", "cost/gflops", "cost/own_params_m", "cost/own_gflops"}
    table = pd.read_csv(record / "costs.csv", index_col="part")
    result = status(record)["result"]
    assert list(table.index) == ["backbone", "neck", "head", "total"]
    assert table.at["neck", "GFLOPs"] == pytest.approx(result["cost/neck_gflops"], rel=1e-5)
    assert table.at["total", "params"] == pytest.approx(result["cost/params_m"], rel=1e-5)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}")
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    files = {"costs.csv", "per_class.csv", "precision_recall.csv", "predictions.json", "pictures"}
    assert artifacts == files | {"config.yaml", "environment.json"}

    again = command(*words)
    assert "finished before" in again.stdout
    assert own in again.stdout
    assert f"{100 * status(record)['result']['val/AP50']:.1f}" in again.stdout
    assert len(mlflow_runs(tmp_path / "results")) == 1

    tested = command(
        *RUN, f"dataset.root={digits}", "mode=test", f"weights={record}/weights.safetensors"
    )
    assert tested.returncode == 0, tested.stderr
    assert own in tested.stdout
    results = [status(path)["result"] for path in records(tmp_path / "results")]
    assert len(results) == 2
    for name in ("val/AP", "val/AP50", "val/AR100"):
        assert results[0][name] == results[1][name]


@TASKS
def test_a_kill_loses_nothing_and_the_result_is_the_same(
    words: tuple[str, ...], command: Command, tmp_path: Path, results: Path, digits: Path
) -> None:
    """kill -9 between checkpoints; the weights equal those of a run that was not killed."""
    words = (
        *words, f"dataset.root={digits}", "schedule.steps=80",
        "trainer.log_every=1", "trainer.checkpoint_every=10",
    )  # fmt: skip
    process = start(tmp_path, *words)
    try:
        wait_for_step(tmp_path, 14)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    record = only_record(tmp_path)
    assert status(record)["state"] == "running"
    resumed = command(*words, OMP_NUM_THREADS="1")
    assert resumed.returncode == 0, resumed.stderr
    gone_on = re.search(r"going on from step (\d+) of 80", resumed.stdout)
    assert gone_on is not None
    assert int(gone_on[1]) >= 10

    assert status(record)["attempt"] == 2
    (run,) = mlflow_runs(tmp_path / "results")
    assert run.info.status == "FINISHED"
    assert mlflow_steps(tmp_path / "results", run.info.run_id, "train/loss") == list(range(1, 81))
    steps = [
        point.step
        for point in MetricsFile(record / "metrics.jsonl").read()
        if "train/loss" in point.values
    ]
    assert steps == list(range(1, 81))

    whole = command(*words, "results_dir=whole", OMP_NUM_THREADS="1")
    assert whole.returncode == 0, whole.stderr
    from safetensors.torch import load_file

    expected = load_file(records(tmp_path / "whole")[0] / "weights.safetensors")
    weights = load_file(record / "weights.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name]), name


@TASKS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_a_signal_stops_cleanly_and_the_run_goes_on(
    number: signal.Signals,
    words: tuple[str, ...],
    command: Command,
    tmp_path: Path,
    results: Path,
    digits: Path,
) -> None:
    """The signal reaches the workers too, as Ctrl-C in a terminal and a scheduler's stop do."""
    words = (*words, f"dataset.root={digits}", "schedule.steps=300", "trainer.log_every=1")
    process = start(tmp_path, *words)
    wait_for_step(tmp_path, 3)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command goes on from there" in output
    assert "Traceback" not in output
    record = only_record(tmp_path)
    stopped = status(record)
    assert stopped["state"] == "interrupted"
    assert 3 <= stopped["step"] < 300
    assert mlflow_runs(tmp_path / "results")[0].info.status == "KILLED"
    done = command(*words)
    assert f"going on from step {stopped['step']} of 300" in done.stdout
    (run,) = mlflow_runs(tmp_path / "results")
    assert run.info.status == "FINISHED"
    assert mlflow_steps(tmp_path / "results", run.info.run_id, "train/loss") == list(range(1, 301))


@pytest.mark.parametrize(
    ("words", "count"),
    [(QUICK, 4), pytest.param(RUN, 8, marks=pytest.mark.slow)],
    ids=["four", "eight"],
)
def test_runs_started_at_once(words: tuple[str, ...], count: int, tmp_path: Path) -> None:
    """On an empty results_dir: the data, the store and the experiment are made once."""
    processes = [
        start(tmp_path, *words, "schedule.steps=2", f"seed={seed}", "trainer.workers=0")
        for seed in range(count)
    ]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
        assert "Traceback" not in output
        assert "warning" not in output.lower()
    assert len(records(tmp_path / "results")) == count
    runs = mlflow_runs(tmp_path / "results")
    assert Counter(run.info.status for run in runs) == {"FINISHED": count}
    assert {run.data.params["seed"] for run in runs} == {str(seed) for seed in range(count)}
    assert [path.name for path in (tmp_path / "results" / "datasets").iterdir()] == ["digits-v2"]


def test_the_same_run_twice_at_once(
    command: Command, tmp_path: Path, results: Path, digits: Path
) -> None:
    words = (*QUICK, f"dataset.root={digits}", "schedule.steps=1000", "trainer.log_every=1")
    process = start(tmp_path, *words)
    try:
        wait_for_step(tmp_path, 1)
        second = command(*words)
        assert second.returncode == 2
        assert "already running" in second.stderr
        assert str(process.pid) in second.stderr
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.mark.parametrize("how", ["root", "environment"])
def test_real_coco(how: str, command: Command, tmp_path: Path, results: Path) -> None:
    """The reader of COCO on a tree with polygons, RLE, a crowd, an empty image, odd ids."""
    write_coco_tree(tmp_path / "data" / "coco")
    words = [
        *RUN, "schedule.epochs=null", "schedule.steps=2", "schedule.batch_size=2",
        "dataset.shorter_side=96", "dataset.longer_side=160",
    ]  # fmt: skip
    variables = {}
    if how == "root":
        words += ["dataset=coco", "dataset.root=data/coco"]
    else:
        variables = {"PVT_BENCH_DATA": str(tmp_path / "data")}
    done = command(*words, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dataset: coco")
    assert ("as typed" in done.stdout) == (how == "root")
    assert "left out of training" in done.stdout
    result = status(only_record(tmp_path))["result"]
    assert 0 <= result["val/AP"] <= 1


def test_rerun_starts_over(command: Command, tmp_path: Path, results: Path, digits: Path) -> None:
    words = (*QUICK, f"dataset.root={digits}", "schedule.steps=1")
    assert command(*words).returncode == 0
    first = status(only_record(tmp_path))
    assert command(*words, "rerun=true").returncode == 0
    second = status(only_record(tmp_path))
    assert second["mlflow"]["run_id"] != first["mlflow"]["run_id"]
    assert second["result"]["val/top1"] == first["result"]["val/top1"]


def test_a_sweep_of_two(command: Command, tmp_path: Path, results: Path) -> None:
    done = command("-m", "model=pvt_tiny,pvt_small", "task=coco_retinanet", "mode=cost")
    assert done.returncode == 0, done.stderr
    costs = {
        path.name.split("-")[0]: status(path)["result"] for path in records(tmp_path / "results")
    }
    assert costs["pvt_tiny"]["cost/gflops"] < costs["pvt_small"]["cost/gflops"]
    assert {run.info.status for run in mlflow_runs(results)} == {"FINISHED"}


def test_speed(command: Command, tmp_path: Path, results: Path) -> None:
    done = command(
        *RUN[:-2], "mode=speed", "speed.size=[64,96]", "speed.batch_size=2", "trainer=cpu"
    )
    assert done.returncode == 0, done.stderr
    record = status(only_record(tmp_path))
    assert record["result"]["speed/latency_ms"] > 0
    assert record["result"]["speed/images_per_s"] > 0
    assert record["result"]["speed/peak_memory_gb"] > 0.1
    measured = record["measured"]
    assert measured["device"].startswith("CPU")
    assert measured["dtype"] == "float32"
    assert measured["threads"] >= 1
    assert measured["torch"] == torch.__version__


def test_a_dead_tracking_server_costs_a_warning(
    command: Command, tmp_path: Path, results: Path, digits: Path
) -> None:
    words = (*QUICK, f"dataset.root={digits}", "schedule.steps=2")
    dead = "tracking.uri=http://127.0.0.1:9"
    done = command(*words, dead)
    assert done.returncode == 0, done.stderr
    assert "Nothing is lost" in done.stdout + done.stderr
    assert status(only_record(tmp_path))["mirrored"] is False
    caught_up = command(*words)
    assert "finished before" in caught_up.stdout
    assert mlflow_runs(tmp_path / "results")[0].info.status == "FINISHED"
