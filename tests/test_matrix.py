"""Every task with backbones of eight families: a training step and an evaluation each.

Mask R-CNN reads the same maps as RetinaNet and takes three times as long: of most families, that
is among the slow tests.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch.optim import SGD
from torch.utils.data import Subset

from pvt_bench.builders import build_module, build_network, open_data
from pvt_bench.config.folders import config_dir
from pvt_bench.config.recipes import add_recipe
from pvt_bench.config.registry import register
from pvt_bench.datasets.loading import eval_loader, train_loader

TASKS = sorted(path.stem for path in config_dir().glob("task/*.yaml"))
BACKBONES = (
    "pvt_tiny",
    "pvt_v2_b0",
    "resnet18",
    "skresnet18",
    "deit_tiny_patch16_224",
    "densenet121",
    "googlenet",
    "mixed_link_105",
)


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def pairs() -> Iterator[object]:
    for task in TASKS:
        for model in BACKBONES:
            slow = task == "coco_mask_rcnn" and model not in ("pvt_tiny", "resnet18")
            yield pytest.param(task, model, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(("task", "model"), pairs())
def test_a_step_and_an_evaluation(task: str, model: str, digits: Path) -> None:
    words = [f"model={model}", f"task={task}", f"dataset.root={digits}", "results_dir=unused"]
    config = compose("config", add_recipe(words))
    views = open_data(config)
    torch.manual_seed(0)
    network = build_network(config, views["train"].num_classes)
    module = build_module(config, network, lambda network: None, views["val"])
    optimizer = SGD(network.parameters(), lr=1e-4)
    (batch,) = train_loader(views["train"], 2, seed=0, workers=0, first=0, stop=1)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    module.train()
    module.training_step(batch, 0)["loss"].backward()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    assert any(
        not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)
    )
    module.eval()
    module.on_validation_start()
    with torch.no_grad():
        for images in eval_loader(Subset(views["val"], [0, 1, 2]), 2, workers=0):
            module.validation_step(images, 0)
    module.on_validation_end()
    assert [image_id for image_id, *_ in module.results] == [
        int(views["val"][index][1]["image_id"]) for index in range(3)
    ]
