"""Backbones of every family learn: RetinaNet's loss falls within sixty steps on the digits."""

import json
from pathlib import Path
from statistics import mean

import pytest
from conftest import Command

BACKBONES = (
    ("pvt_tiny", "model.sr_ratios=[4,4,2,1]"),
    ("pvt_v2_b2_li",),
    ("resnet18",),
    ("resnext50_32x4d",),
    ("vit_small_patch16",),
    ("deit_tiny_patch16_224",),
    ("densenet121",),
    ("googlenet",),
    ("mixed_link_105",),
    ("timm", "model.name=convnext_tiny"),
)
STEPS = 60


@pytest.mark.slow
@pytest.mark.parametrize("model", BACKBONES, ids=lambda words: words[-1].rpartition("=")[2])
def test_the_loss_falls(
    model: tuple[str, ...], command: Command, tmp_path: Path, digits: Path
) -> None:
    name, *options = model
    done = command(
        f"model={name}",
        *options,
        "task=coco_retinanet",
        f"dataset.root={digits}",
        f"schedule.steps={STEPS}",
        "schedule.warmup_steps=10",
        "trainer.log_every=1",
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").glob("runs/*/*/*/metrics.jsonl")
    points = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [point["train/loss"] for point in points if "train/loss" in point]
    assert len(losses) == STEPS
    assert mean(losses[-10:]) < mean(losses[:10]) * 2 / 3
