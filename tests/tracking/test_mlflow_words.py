"""What MLflow says of runs in words: why one failed, what started it, where its record is."""

import json
from pathlib import Path

import pytest
from conftest import SMALL, Command
from mlflow import MlflowClient
from mlflow.entities import Run
from test_mlflow_mirror import mirror_of, open_record
from test_run import mlflow_runs
from test_sync import runs, sync

from pvt_bench.tracking.addresses import default_uri
from pvt_bench.tracking.ending import ending
from pvt_bench.tracking.views import curves_view

NOTE = "mlflow.note.content"
COST = ("model=lenet5", "task=imagenet_classification", "mode=cost")


def test_a_failed_run_says_why(command: Command, digits: Path, tmp_path: Path) -> None:
    failed = command(
        "model=pvt_small", "task=coco_retinanet", *SMALL, "schedule.batch_size=2",
        f"dataset.root={digits}", "schedule.steps=3", "schedule.lr=1e20",
    )  # fmt: skip
    assert failed.returncode == 1
    (run,) = mlflow_runs(tmp_path / "results")
    assert (run.info.status, run.data.tags["state"]) == ("FAILED", "failed")
    assert run.data.tags["error"].startswith("The loss is not finite")
    assert run.data.tags["error"] in failed.stderr
    note = run.data.tags[NOTE]
    assert note.startswith("**Failed**: The loss is not finite")
    assert f"**record**: {tmp_path}/results/runs/coco_retinanet" in note
    assert "`python -m pvt_bench model=pvt_small" in note


def ended_by(error: BaseException, results: Path) -> Run:
    with (
        pytest.raises(type(error)),
        open_record(results) as record,
        ending(record, mirror_of(record, default_uri(results))),
    ):
        raise error
    (run,) = mlflow_runs(results)
    return run


def test_an_error_that_nobody_foresaw_shows_its_last_lines_as_text(results: Path) -> None:
    note = ended_by(RuntimeError("<b>no</b> ``` \x1b[31m http://me:secret@host"), results)
    told = json.dumps(note.data.tags, ensure_ascii=False)
    assert "secret" not in told
    assert "\x1b" not in told
    head, _, lines = note.data.tags[NOTE].partition("````text\n")
    assert "&lt;b&gt;no" in head
    assert "Traceback (most recent call last)" in lines
    assert lines.endswith("\n````\n")
    assert "RuntimeError: <b>no</b> ``` \\x1b" in lines


def test_the_next_attempt_says_nothing_of_the_last_one(results: Path) -> None:
    ended_by(RuntimeError("broken"), results)
    with open_record(results) as record:
        mirror = mirror_of(record, default_uri(results))
        with ending(record, mirror):
            (run,) = mlflow_runs(results)
            assert "error" not in run.data.tags
            assert run.data.tags[NOTE].startswith("**Running**\n")
            record.update(state="finished")
            mirror.publish()
    (run,) = mlflow_runs(results)
    assert run.data.tags["state"] == "finished"
    assert "broken" not in json.dumps(run.data.tags)


def test_a_stop_is_no_failure(results: Path) -> None:
    run = ended_by(KeyboardInterrupt(), results)
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "interrupted")
    assert run.data.tags[NOTE].startswith("**Interrupted**: stopped at once\n")
    assert "Traceback" not in run.data.tags[NOTE]


def test_an_experiment_is_described_once_and_keeps_its_own_words(
    command: Command, results: Path
) -> None:
    client = MlflowClient(default_uri(results))
    client.create_experiment("imagenet_classification/speed")
    client.create_experiment("imagenet_classification/cost", tags={NOTE: "mine"})
    for mode in ("cost", "speed"):
        words = (*COST[:2], f"mode={mode}", "speed.repeats=1", "speed.batch_size=1")
        done = command(*words, "trainer=cpu")
        assert done.returncode == 0, done.stderr
    found = {each.name: each.tags for each in client.search_experiments()}
    assert found["imagenet_classification/cost"][NOTE] == "mine"
    tags = found["imagenet_classification/speed"]
    assert "`task=imagenet_classification`: latency" in tags[NOTE]
    view = json.loads(tags["mlflow.sharedViewState.pvt-bench-curves"])
    assert "metrics.`speed/latency_ms`" in json.loads(view["state"])["selectedColumns"]


def test_a_sweep_has_a_view_that_begins_with_what_was_swept(
    command: Command, tmp_path: Path
) -> None:
    done = command("-m", "model=lenet5,resnet18", *COST[1:])
    assert done.returncode == 0, done.stderr
    (parent,) = (run for run in runs(tmp_path / "results") if run.data.tags.get("kind"))
    client = MlflowClient(default_uri(tmp_path / "results"))
    tags = client.get_experiment(parent.info.experiment_id).tags
    view = json.loads(tags[f"mlflow.sharedViewState.{parent.info.run_id}"])
    assert view["name"] == parent.info.run_name
    state = json.loads(view["state"])
    (card,) = state["compareRunCharts"]
    assert (card["selectedParams"], card["selectedMetrics"]) == (["model.name"], ["cost/params_m"])
    sections = {each["name"]: each["display"] for each in state["compareRunSections"]}
    assert sections == {"what was swept": True, "cost": True}


def test_the_view_of_trainings_begins_with_curves_and_folds_the_costs() -> None:
    (text,) = curves_view(["val/AP", "cost/gflops"]).values()
    state = json.loads(json.loads(text)["state"])
    sections = {each["name"]: each["display"] for each in state["compareRunSections"]}
    assert [name for name, unfolded in sections.items() if unfolded][:2] == ["train", "val"]
    assert not sections["cost"]


def test_source_and_command_are_told_without_the_password(command: Command, tmp_path: Path) -> None:
    address = "tracking.uri=http://me:hunter2planted@127.0.0.1:1"
    swept = ("-m", "model=lenet5,resnet18", *COST[1:], address)
    for words in ((*COST, address), swept):
        done = command(*words)
        assert done.returncode == 0, done.stderr
    sent = sync(tmp_path, f"uri=sqlite:///{tmp_path / 'results' / 'mlflow.db'}")
    assert sent.returncode == 0, sent.stderr
    tags = [run.data.tags for run in runs(tmp_path / "results")]
    found = {each["command"] for each in tags}
    start, shown = "python -m pvt_bench", "'tracking.uri=http://me:***@127.0.0.1:1'"
    assert found == {
        f"{start} {' '.join(COST)} {shown}",
        f"{start} {' '.join(swept[:-1])} {shown}",
    }
    for each in tags:
        assert each["mlflow.source.name"] == start
        assert each["mlflow.source.type"] == "LOCAL"
        assert "kind" in each or f"**command**: `{start} " in each[NOTE]
