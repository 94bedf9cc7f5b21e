"""The README's first command: from random weights to its row in minutes."""

import json
from pathlib import Path

import pytest
from conftest import SMALL, Command


@pytest.mark.slow
def test_the_main_job_learns(command: Command, tmp_path: Path) -> None:
    done = command("model=pvt_small", "task=coco_retinanet", timeout=1500)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").glob("runs/*/*/*/status.json")
    assert json.loads(path.read_text())["result"]["val/AP"] >= 0.35


def test_an_untrained_network_scores_next_to_nothing(
    command: Command, tmp_path: Path, digits: Path
) -> None:
    words = ("model=pvt_small", *SMALL, "task=coco_retinanet", f"dataset.root={digits}")
    done = command(*words, "schedule.steps=0")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").glob("runs/*/*/*/status.json")
    assert json.loads(path.read_text())["result"]["val/AP"] < 0.02
