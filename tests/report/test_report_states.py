"""Runs that did not finish: the reader sees it in every table, and nothing of theirs is best."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import environment
from forking import run_forked
from report_runs import COST, TASK, make_run, settings, train

UNFINISHED = ("failed", "interrupted", "running")


def run(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = run_forked(("formats=md,tex,html", *words), cwd, environment(), 120, "pvt_bench.report")
    assert done.returncode == 0, done.stderr
    return done


def rows(folder: Path, name: str = "report") -> list[dict[str, str]]:
    """Rows of the first table in Markdown, by heading."""
    text = (folder / "results" / "tables" / f"{name}.md").read_text().partition("\n## Runs")[0]
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    heading, _, *cells = [line for line in lines if len(line) == len(lines[0])]
    return [dict(zip(heading, line, strict=True)) for line in cells]


def interrupt(folder: Path, model: str, state: str, latency: float) -> None:
    """A training that did not finish, of a network whose speed was measured."""
    train(folder / "results", f"model={model}", score=None, state=state)
    speed = settings(TASK, f"model={model}", "mode=speed")
    make_run(folder / "results", speed, {"speed/latency_ms": latency})


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_table_without_any_finished_row_shows_the_states(tmp_path: Path, state: str) -> None:
    interrupt(tmp_path, "pvt_tiny", state, 9.0)
    # Without a heartbeat, what says that it runs is lost.
    shown = "lost" if state == "running" else state
    done = run(tmp_path)
    assert re.search(rf"model +state +Latency .*\n.*\n +pvt_tiny +{shown} +9\.0", done.stdout)
    (row,) = [row for row in rows(tmp_path) if row.get("model") == "pvt_tiny"]
    assert row["state"] == shown
    tables = tmp_path / "results" / "tables"
    assert f"pvt\\_tiny & {shown} & 9.0" in (tables / "report.tex").read_text()
    assert f"<td>{shown}</td>" in (tables / "report.html").read_text()


def test_a_row_with_some_finished_runs_counts_them(tmp_path: Path) -> None:
    train(tmp_path / "results", "model=pvt_tiny", "seed=0")
    for seed, state in enumerate((*UNFINISHED, "failed"), start=1):
        train(tmp_path / "results", "model=pvt_tiny", f"seed={seed}", score=None, state=state)
    train(tmp_path / "results", "model=resnet18", "seed=0", score=0.3)
    run(tmp_path)
    shown = {row["model"]: row["state"] for row in rows(tmp_path)}
    assert shown == {
        "pvt_tiny": "1 finished, 2 failed, 1 lost, 1 interrupted",
        "resnet18": "finished",
    }


def test_a_table_of_finished_rows_needs_no_states(tmp_path: Path) -> None:
    train(tmp_path / "results", "model=pvt_tiny")
    run(tmp_path)
    assert "state" not in rows(tmp_path)[0]


def test_a_published_table_shows_the_states(tmp_path: Path) -> None:
    words = (TASK, "model=resnet50", "dataset=coco", "model.weights=imagenet")
    make_run(tmp_path / "results", settings(*words), None, "failed", digests={"model.weights": "d"})
    run(tmp_path, "table=coco_retinanet")
    found = [(row["model"], row["state"]) for row in rows(tmp_path, "coco_retinanet")]
    assert found.count(("resnet50", "failed")) == 1
    assert {state for _, state in found} == {"state", "---", "failed", "–"}
    assert ("pvt_small", "–") in found


def test_nothing_of_an_unfinished_row_is_best(tmp_path: Path) -> None:
    for model, score, latency in (("pvt_tiny", 0.3, 9.0), ("pvt_small", 0.4, 12.0)):
        train(tmp_path / "results", f"model={model}", score=score)
        speed = settings(TASK, f"model={model}", "mode=speed")
        make_run(tmp_path / "results", speed, {"speed/latency_ms": latency})
    interrupt(tmp_path, "resnet18", "failed", 2.0)
    interrupt(tmp_path, "resnet50", "interrupted", 3.0)
    run(tmp_path)
    found = {row["model"]: row for row in rows(tmp_path)}
    latencies = {model: row["Latency (ms)"] for model, row in found.items()}
    assert latencies == {
        "pvt_tiny": "**9.0**", "pvt_small": "12.0", "resnet18": "2.0", "resnet50": "3.0",
    }  # fmt: skip
    assert found["pvt_small"]["AP"] == "**40.0**"
    assert found["resnet18"]["AP"] == "–"


def test_equal_values_have_no_best(tmp_path: Path) -> None:
    for model in ("pvt_tiny", "pvt_small"):
        for seed in (0, 1):
            row = {**COST, "val/AP": 0.0, "val/AP50": 0.1 if model == "pvt_tiny" else 0.2}
            make_run(tmp_path / "results", settings(TASK, f"model={model}", f"seed={seed}"), row)
    train(tmp_path / "results", "model=resnet18", score=None, state="failed")
    run(tmp_path)
    found = {row["model"]: row for row in rows(tmp_path)}
    for model in ("pvt_tiny", "pvt_small"):
        assert found[model]["AP"] == "0.0 ± 0.0"
        assert found[model]["GFLOPs"] == "285.80"
    assert found["pvt_small"]["AP50"] == "**20.0 ± 0.0**"
