"""A dataset of the user's own, not laid out like COCO: one YAML and one Python file."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import environment
from PIL import Image

MODULE = '''
"""Boxes in a CSV beside PNGs, a line per box: file, left, top, right, bottom, name."""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pvt_bench.datasets.views import DetectionView, Views


class Boxes(Views):
    def __init__(self, name: str, root: str, mirror: float = 0.5) -> None:
        self.name, self.root, self.mirror = name, Path(root), mirror

    def detection(self, split: str, masks: bool = False) -> "BoxesOfCsv":
        return BoxesOfCsv(self.root / split, self.mirror if split == "train" else 0.0)


class BoxesOfCsv(DetectionView):
    def __init__(self, folder: Path, mirror: float) -> None:
        with (folder / "boxes.csv").open() as file:
            self.lines = list(csv.DictReader(file))
        self.folder, self.mirror = folder, mirror
        self.files = sorted({line["file"] for line in self.lines})
        self.class_names = sorted({line["name"] for line in self.lines})
        super().__init__(len(self.files))

    def sources(self):
        return [self.folder / "boxes.csv", *(self.folder / file for file in self.files)]

    def load(self, index):
        pixels = np.asarray(Image.open(self.folder / self.files[index]).convert("RGB"))
        image = torch.tensor(pixels).permute(2, 0, 1) / 255
        own = [line for line in self.lines if line["file"] == self.files[index]]
        sides = ("left", "top", "right", "bottom")
        boxes = torch.tensor([[float(line[side]) for side in sides] for line in own])
        if torch.rand(()) < self.mirror:
            image, boxes = image.flip(2), boxes[:, [2, 1, 0, 3]]
            boxes[:, [0, 2]] = image.shape[2] - boxes[:, [0, 2]]
        return image, {
            "boxes": boxes,
            "labels": torch.tensor([self.class_names.index(line["name"]) for line in own]),
            "image_id": torch.tensor(index + 1),
            "size": torch.tensor(image.shape[1:]),
        }
'''
RUN = (
    "model=resnet18", "task=coco_retinanet", "dataset=boxes", "schedule=coco_retinanet_digits",
    "schedule.steps=2", "schedule.batch_size=2", "trainer=cpu", "trainer.workers=0",
)  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the user's dataset, its YAML and its module."""
    (tmp_path / "conf/dataset").mkdir(parents=True)
    (tmp_path / "conf/dataset/boxes.yaml").write_text(
        f"_target_: my_boxes.Boxes\nname: boxes\nroot: {tmp_path}/images\n"
    )
    (tmp_path / "my_boxes.py").write_text(MODULE)
    for split, seed in {"train": 0, "val": 1}.items():
        write_split(tmp_path / "images" / split, seed)
    return tmp_path


def write_split(folder: Path, seed: int) -> None:
    """Four images of noise, a bright and a dark box in each."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    with (folder / "boxes.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["file", "left", "top", "right", "bottom", "name"])
        for number in range(4):
            pixels = random.integers(60, 160, (64, 96, 3), dtype=np.uint8)
            for name, shade, left in (("bright", 255, 8), ("dark", 0, 52)):
                pixels[16:48, left : left + 32] = shade
                lines.writerow([f"{number}.png", left, 16, left + 32, 48, name])
            Image.fromarray(pixels).save(folder / f"{number}.png")


def type_own(own: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(own), *filter(None, [os.environ.get("PYTHONPATH")])])
    values = environment(PYTHONPATH=path, PVT_BENCH_PACKAGES="my_boxes")
    words = (*words, f"hydra.searchpath=[file://{own}/conf]")
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=own, env=values, capture_output=True, text=True)


def test_it_is_trained_scored_and_told_from_other_data(own: Path, results: Path) -> None:
    done = type_own(own, "pvt_bench", *RUN)
    assert done.returncode == 0, done.stderr
    (status,) = results.glob("runs/coco_retinanet/boxes/*/status.json")
    result = json.loads(status.read_text())["result"]
    assert 0 <= result["val/AP"] <= 1
    per_class = (status.parent / "per_class.csv").read_text()
    assert "bright" in per_class
    assert "dark" in per_class
    again = type_own(own, "pvt_bench", *RUN)
    assert "finished before" in again.stdout, again.stderr
    image = own / "images/train/0.png"
    Image.fromarray(np.asarray(Image.open(image)) // 2).save(image)
    other = type_own(own, "pvt_bench", *RUN)
    assert other.returncode == 0, other.stderr
    assert len([*results.glob("runs/coco_retinanet/boxes/*/status.json")]) == 2


def test_what_it_does_not_have_is_said(own: Path) -> None:
    words = ("model=resnet18", "task=imagenet_classification", "dataset=boxes")
    refused = type_own(own, "pvt_bench", *words, "schedule=imagenet_classification_imagenet")
    assert refused.returncode == 2
    assert "dataset=boxes has no classification view (it has: detection)" in refused.stderr
    survey = type_own(own, "pvt_bench.preflight", *RUN[1:4])
    assert survey.returncode == 2
    assert "dataset=boxes cannot be checked beforehand" in survey.stderr
