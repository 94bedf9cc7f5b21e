"""A task of the user's own: one YAML and one Python file, with nothing of pvt-bench changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment

MODULE = '''
"""Whether a digit is even: a linear layer on the last map of a pyramid."""

import torch
from torch import nn
from torch.nn import functional as F

from pvt_bench.networks.batch import normalise_and_pad
from pvt_bench.tasks.classification import Classification


class Pooled(nn.Module):
    def __init__(self, backbone: nn.Module, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone, self.num_classes = backbone, num_classes
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(backbone.channels[-1], num_classes)
        )

    def outputs(self, images):
        batch = normalise_and_pad(images, self.backbone.mean, self.backbone.std, multiple=32)
        return self.head(self.backbone(batch)[-1].mean((2, 3)))

    def forward(self, images, targets=None):
        logits = self.outputs(images)
        if targets is None:
            return logits
        labels = torch.stack([target["label"] for target in targets])
        return {"cross_entropy": F.cross_entropy(logits, labels)}


class Parity(Classification):
    def score(self, directory):
        right = [each["label"] % 2 == each["guesses"][0] % 2 for _, each in self.results]
        return {"val/even": sum(right) / len(right)} | super().score(directory)
'''
TASK = """
name: parity_of_digits
dataset: digits
view: classification
network:
  _target_: parity.Pooled
  dropout: 0.1
module:
  _target_: parity.Parity
headline: [even, top1]
features: true
protocol:
  num_classes: 10
  size: [64, 64]
"""
SMALL = (
    "model.depths=[1,1,1,1]",
    "model.channels=[8,16,40,64]",
    "trainer=cpu",
    "trainer.workers=0",
)
DIGITS = "schedule=imagenet_classification_digits"
SHORT = ("schedule.steps=2", "schedule.batch_size=4", "trainer.eval_batch_size=100")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the user's task and its module."""
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/parity.yaml").write_text(TASK)
    (tmp_path / "parity.py").write_text(MODULE)
    return tmp_path


def type_own(
    own: Path, *words: str, module: str = "pvt_bench", **more: str
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(own), *filter(None, [os.environ.get("PYTHONPATH")])])
    values = environment(PYTHONPATH=path, PVT_BENCH_PACKAGES="parity", **more)
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=own, env=values, capture_output=True, text=True)


def searched(own: Path) -> str:
    return f"hydra.searchpath=[file://{own}/conf]"


def test_it_is_trained_and_reported(own: Path, results: Path, digits: Path) -> None:
    run = ("model=pvt_tiny", "task=parity", searched(own), f"dataset.root={digits}", DIGITS)
    done = type_own(own, *run, *SMALL, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "recipe: none (none is published for pvt_tiny in parity_of_digits)" in done.stdout
    (status,) = results.glob("runs/parity_of_digits/digits/*/status.json")
    result = json.loads(status.read_text())["result"]
    assert 0 <= result["val/even"] <= 1
    assert {"val/top1", "cost/params_m"} <= result.keys()
    tables = type_own(own, "formats=md", module="pvt_bench.report")
    assert tables.returncode == 0, tables.stderr
    assert "parity_of_digits" in tables.stdout


def test_what_is_typed_wrong_is_told_with_the_own_names(own: Path) -> None:
    none = type_own(own, "model=pvt_tiny", searched(own))
    assert none.returncode == 2
    assert "parity" in none.stderr
    unscheduled = type_own(own, "model=pvt_tiny", "task=parity", searched(own))
    assert unscheduled.returncode == 2
    assert "There is no schedule=parity_digits." in unscheduled.stderr
    assert "where a task has none for a dataset, add schedule=NAME" in unscheduled.stderr
    elsewhere = type_own(own, "model=pvt_tiny", "task=parity")
    assert elsewhere.returncode == 2
    assert "There is no task=parity" in elsewhere.stderr


def test_its_own_data_is_what_its_yaml_names(own: Path) -> None:
    words = ("model=pvt_tiny", "task=parity", DIGITS, searched(own), "--cfg", "job")
    composed = type_own(own, *words, PVT_BENCH_DATA="/data")
    assert "_target_: pvt_bench.datasets.digits.Digits" in composed.stdout, composed.stderr
