"""A backbone of a user's own package: one YAML and one Python file, and nothing of pvt-bench."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import Command
from torch import nn

from pvt_bench.backbones import create
from pvt_bench.errors import InputError
from pvt_bench.networks.classifier import Classifier
from pvt_bench.networks.retinanet import RetinaNet

YAML = """
_target_: my_backbones.strided.Strided
name: strided
weights: null
width: 8
"""
SOURCE = """
from torch import nn


class Strided(nn.Module):
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    strides = (4, 8, 16, 32)

    def __init__(self, num_classes: int, features: bool, width: int = 4) -> None:
        super().__init__()
        self.channels = [width, 2 * width, 4 * width, 8 * width]
        inputs = [3, *self.channels[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, side, stride=side), nn.ReLU())
            for before, after, side in zip(inputs, self.channels, (4, 2, 2, 2), strict=True)
        )
        self.head = None if features else nn.Linear(8 * width, num_classes)

    def forward(self, images):
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:] if self.head is None else self.head(maps[-1].mean((2, 3)))


def quarter(**options):
    return Strided(width=2, **options)


class Bare(nn.Module):
    def __init__(self, num_classes: int, features: bool) -> None:
        super().__init__()


class OnlyLogits(Bare):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, False)
"""
TASKS = ("imagenet_classification", "coco_retinanet")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's package, with the YAML of its model."""
    package, models = tmp_path / "my_backbones", tmp_path / "my_conf" / "model"
    package.mkdir()
    models.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "strided.py").write_text(SOURCE)
    (models / "strided.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PVT_BENCH_PACKAGES", "my_backbones")
    return tmp_path


def run(command: Command, own: Path, *words: str) -> subprocess.CompletedProcess[str]:
    searched = f"hydra.searchpath=[file://{own / 'my_conf'}]"
    more = {"PYTHONPATH": str(own), "PVT_BENCH_PACKAGES": "my_backbones"}
    return command("model=strided", "trainer=cpu", searched, *words, **more)


def row(own: Path) -> dict[str, float]:
    (found,) = own.glob("results/runs/*/*/*/status.json")
    result: dict[str, float] = json.loads(found.read_text())["result"]
    return result


@pytest.mark.parametrize("task", TASKS)
def test_an_own_model_is_trained_and_scored(
    command: Command, own: Path, digits: Path, task: str
) -> None:
    length = ("schedule.epochs=null", "schedule.steps=2", "schedule.batch_size=4")
    done = run(command, own, f"task={task}", f"dataset.root={digits}", *length, "model.width=4")
    assert done.returncode == 0, done.stderr
    assert row(own)["cost/params_m"] > 0
    assert {"val/top1", "val/AP"} & row(own).keys()


@pytest.mark.parametrize("task", TASKS)
def test_an_own_model_is_counted(command: Command, own: Path, task: str) -> None:
    done = run(command, own, f"task={task}", "mode=cost")
    assert done.returncode == 0, done.stderr
    # Convolutions of patches that do not overlap: (3 x 4^2) x 8 + 8, then (c x 2^2) x 2 c + 2 c.
    count = 48 * 8 + 8 + sum(8 * c * c + 2 * c for c in (8, 16, 32))
    in_backbone = count + (65 * 1000 if task == "imagenet_classification" else 0)
    assert row(own)["cost/backbone_params_m"] == pytest.approx(in_backbone / 1e6)


def test_what_an_own_model_does_not_take_is_refused(command: Command, own: Path) -> None:
    words = ("task=coco_retinanet", "mode=cost")
    for typed, message in (
        ("+model.depth=3", "There is no key model.depth"),
        ("model.width=wide", "model.width=wide cannot be used: expected a whole number"),
        ("+model.features=false", "model.features cannot be set"),
        ("~model.weights", "takes away a key"),
        ("model._target_=torch.nn.Identity", "may not be called"),
    ):
        done = run(command, own, *words, typed)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.usefixtures("own")
def test_a_function_builds_a_model_too() -> None:
    network = create("quarter", 7, _target_="my_backbones.strided.quarter", features=True)
    assert network.channels == [2, 4, 8, 16]


@pytest.mark.usefixtures("own")
def test_a_network_says_what_its_backbone_lacks() -> None:
    bare = create("bare", _target_="my_backbones.strided.Bare", features=True)
    with pytest.raises(InputError, match=r"Bare has no \.mean and no \.std: expected \.mean"):
        Classifier(bare, 10)
    with pytest.raises(InputError, match=r"no \.channels and no \.strides"):
        RetinaNet(bare, 10)
    with pytest.raises(InputError, match="only_logits is a classifier and has no pyramid"):
        create("only_logits", _target_="my_backbones.strided.OnlyLogits", features=True)
    assert isinstance(create("only", _target_="my_backbones.strided.OnlyLogits"), nn.Module)
