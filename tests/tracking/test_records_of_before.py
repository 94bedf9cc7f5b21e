"""Records made by an earlier version are listed, reported, sent, found and resumed today."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from conftest import Command, environment
from forking import run_forked
from safetensors.torch import load_file

from pvt_bench.tracking.addresses import default_uri
from pvt_bench.tracking.metrics import MetricsFile

BEFORE = Path(__file__).parents[1] / "records" / "before"
SMALL = (
    "model=pvt_small", "model.channels=[2,2,2,2]", "model.depths=[1,1,1,1]",
    "model.heads=[1,1,1,1]", "model.mlp_ratios=[1,1,1,1]", "dataset.root=data",
    "results_dir=results", "trainer=cpu",
)  # fmt: skip
CLASSIFIER = (
    *SMALL, "task=imagenet_classification", "schedule.batch_size=4", "trainer.log_every=1",
)  # fmt: skip
INTERRUPTED = (*CLASSIFIER, "schedule.steps=60", "trainer.checkpoint_every=10", "seed=1")
FINISHED = {
    "training": (*CLASSIFIER, "schedule.steps=4"),
    "training from weights": (*CLASSIFIER, "schedule.steps=2", "weights=weights.safetensors"),
    "test": (*CLASSIFIER, "mode=test", "weights=weights.safetensors"),
    "cost": (*CLASSIFIER, "mode=cost"),
}
TASKS = (
    "imagenet_classification", "coco_retinanet", "coco_mask_rcnn", "coco_detr",
    "ade20k_semantic_fpn", "ade20k_trans2seg",
)  # fmt: skip
SWEEPS = {
    "seed-2474ac": ("-m", *CLASSIFIER, "schedule.steps=2", "seed=2,3"),
    "model-task-60d7c8": (
        "-m", "model=resnet50,pvt_small", f"task={','.join(TASKS)}", "mode=cost",
        "results_dir=results",
    ),
    "task-80ee1b": (
        "-m", *SMALL, "task=coco_retinanet,ade20k_semantic_fpn", "schedule.steps=2",
        "schedule.batch_size=2",
    ),
}  # fmt: skip


@pytest.fixture
def before(tmp_path: Path, digits: Path) -> Path:
    """The records, their weights and their data, as they lay when they were made."""
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "data").symlink_to(digits)
    return tmp_path / "results"


def statuses(results: Path) -> dict[str, str]:
    """The status file of each record, as text, by the record's directory."""
    found = results.glob("runs/*/*/*/status.json")
    return {str(path.parent.relative_to(results)): path.read_text() for path in found}


def light(results: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run_forked(words, results.parent, environment(), 120, f"pvt_bench.{module}")


def test_status_lists_them(before: Path) -> None:
    listed = light(before, "status")
    assert listed.returncode == 1, listed.stderr  # One of the single runs was stopped.
    assert "stopped after step 21 of 60" in listed.stdout
    for name, cells in (("seed-2474ac", 2), ("model-task-60d7c8", 12), ("task-80ee1b", 2)):
        assert re.search(rf"{name} +{cells} done", listed.stdout)
        shown = light(before, "status", f"sweep={name}")
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.count(" done ") >= cells


def test_the_report_has_every_one(before: Path) -> None:
    done = light(before, "report", "formats=csv,md", "mixed=true")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(before / "tables" / "report.csv")
    links = " ".join(table["run_identity"])
    for directory in statuses(before):
        assert directory.rpartition("-")[2] in links, directory
    assert len(table) == 19
    assert sorted(table["top1"].dropna().round(1)) == [7.9, 7.9, 7.9, 10.7]
    assert table["gflops"].notna().all()


def test_the_report_is_what_it_was(before: Path) -> None:
    done = light(before, "report", "formats=csv,md")
    assert done.returncode == 0, done.stderr
    for name in ("report.csv", "report.md"):
        expected = (BEFORE / "tables" / name).read_text()
        assert (before / "tables" / name).read_text() == expected


def test_sync_sends_them_to_a_fresh_store(before: Path) -> None:
    sent = light(before, "sync")
    assert sent.returncode == 0, sent.stderr
    assert "22 of 22 runs are in MLflow" in sent.stdout
    client = mlflow.MlflowClient(default_uri(before))
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    parents = [run for run in found if run.data.tags.get("kind") == "sweep"]
    assert len(found) - len(parents) == 22
    assert sum(run.info.status == "KILLED" for run in found) == 1


def assert_results_are_those(made: dict[str, str], results: Path) -> None:
    """No record was added, and each has the state, attempt and result that it had."""
    now = statuses(results)
    assert now.keys() == made.keys()
    for directory, text in made.items():
        old, new = json.loads(text), json.loads(now[directory])
        for key in ("state", "attempt", "started", "step", "result"):
            assert new.get(key) == old.get(key), directory


def computer(record: Path) -> tuple[str, str]:
    """The device and the release of torch that a run computed with."""
    found = json.loads((record / "environment.json").read_text())
    return found["device"], found["packages"]["torch"]


@pytest.mark.parametrize("words", FINISHED.values(), ids=FINISHED.keys())
def test_a_finished_run_is_not_run_again(
    words: tuple[str, ...], before: Path, command: Command
) -> None:
    made = statuses(before)
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "finished before" in done.stdout
    assert_results_are_those(made, before)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_finished_sweep_is_not_run_again(name: str, before: Path, command: Command) -> None:
    made = statuses(before)
    done = command(*SWEEPS[name])
    assert done.returncode == 0, done.stderr
    assert f"sweeps/{name}" in done.stdout
    assert_results_are_those(made, before)


def test_an_interrupted_run_goes_on_to_the_weights_of_an_undisturbed_one(
    before: Path, command: Command
) -> None:
    (record,) = before.glob("runs/*/*/*-seed1-547573697e")
    resumed = command(*INTERRUPTED, OMP_NUM_THREADS="1")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step 21 of 60" in resumed.stdout
    status = json.loads((record / "status.json").read_text())
    assert (status["state"], status["attempt"], status["step"]) == ("finished", 2, 60)
    assert len(statuses(before)) == 22
    points = list(MetricsFile(record / "metrics.jsonl").read())
    steps = [point.step for point in points if "train/loss" in point.values]
    assert steps == list(range(1, 61))

    whole = command(*INTERRUPTED, "results_dir=whole", OMP_NUM_THREADS="1")
    assert whole.returncode == 0, whole.stderr
    (new,) = before.with_name("whole").glob("runs/*/*/*")
    weights, expected = (load_file(each / "weights.safetensors") for each in (record, new))
    assert weights.keys() == expected.keys()
    # Bits are promised for the same instruction set and release of torch only.
    made, now = (computer(each) for each in (next(BEFORE.glob("*/runs/*/*/*-5eb416429d")), new))
    rtol, atol = (0.0, 0.0) if made == now else (1e-3, 1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=rtol, atol=atol)
