"""What the detection task hands to COCO's evaluator, and what it writes of it."""

import contextlib
import io
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from coco_tree import write_coco_tree
from faster_coco_eval.core import mask as mask_api
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_retinanet import Pyramid
from torch import Tensor, nn

from pvt_bench.backbones import create
from pvt_bench.datasets.coco.reader import Coco
from pvt_bench.datasets.loading import collate
from pvt_bench.measure.average_precision import NAMES, Kind, evaluate
from pvt_bench.networks.detr import DETR
from pvt_bench.networks.mask_rcnn import MaskRCNN
from pvt_bench.networks.retinanet import RetinaNet
from pvt_bench.tasks.detection import Detection, encode_mask, score_saved


class Finds(nn.Module):
    """A network that finds the same on each image."""

    def __init__(self, **found: Tensor) -> None:
        super().__init__()
        self.found = found

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [self.found for _ in images]


def test_boxes_return_to_the_pixels_of_the_file() -> None:
    """An image of 50 x 100 that was shown at 100 x 200 pixels."""
    network = Finds(
        boxes=torch.tensor([[20.0, 10.0, 60.0, 40.0]]),
        scores=torch.tensor([0.5]),
        labels=torch.tensor([1]),
    )
    task = Detection(network, None, SimpleNamespace(category_ids=[3, 90]))
    target = {"image_id": torch.tensor(7), "size": torch.tensor([50, 100])}
    task.validation_step(([torch.zeros(3, 100, 200)], [target]), 0)
    box = [10.0, 5.0, 20.0, 15.0]
    assert task.results == [(7, [{"image_id": 7, "category_id": 90, "bbox": box, "score": 0.5}])]


def test_masks_return_to_the_pixels_of_the_file() -> None:
    """The left half of a box, in an image of half the size that was shown."""
    half = torch.zeros(1, 28, 28)
    half[:, :, :14] = 1
    network = Finds(
        boxes=torch.tensor([[20.0, 16.0, 100.0, 80.0]]),
        scores=torch.tensor([0.5]),
        labels=torch.tensor([0]),
        masks=half,
    )
    task = Detection(network, None, SimpleNamespace(category_ids=[3, 90]))
    target = {"image_id": torch.tensor(7), "size": torch.tensor([50, 100])}
    task.validation_step(([torch.zeros(3, 100, 200)], [target]), 0)
    ((_, (found,)),) = task.results
    expected = np.zeros((50, 100), bool)
    expected[8:40, 10:30] = True
    mask = mask_api.decode(found["segmentation"]).astype(bool)
    assert (mask == expected).all()


def test_a_mask_reaches_over_no_edge() -> None:
    mask = mask_api.decode(
        encode_mask(torch.ones(28, 28), torch.tensor([-5.0, 0, 30, 20]), (20, 30))
    )
    assert mask.shape == (20, 30)
    assert mask.all()
    none = encode_mask(torch.full((28, 28), 0.49), torch.tensor([0.0, 0, 30, 20]), (20, 30))
    assert mask_api.area(none) == 0


@pytest.fixture(params=["boxes", "masks"])
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Detection:
    masks = request.param == "masks"
    tree = Coco("coco", str(write_coco_tree(tmp_path)), 96, 160, 0.0)
    view = tree.detection("val", masks=masks)
    torch.manual_seed(0)
    network: nn.Module
    if masks:
        network = MaskRCNN(
            Pyramid(), view.num_classes, proposals=20, score_threshold=0.0, detections=8
        )
    else:
        network = RetinaNet(Pyramid(), view.num_classes, score_threshold=0.0)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.05)
    return Detection(network.eval(), None, view)


def detect(task: Detection, batch_size: int, order: int = 1) -> dict[int, Any]:
    task.on_validation_start()
    places = range(len(task.view))[::order]
    with torch.no_grad():
        for first in range(0, len(places), batch_size):
            samples = [task.view[i] for i in places[first : first + batch_size]]
            task.validation_step(collate(samples), 0)
    task.on_validation_end()
    return dict(task.results)


def test_what_is_found_does_not_depend_on_the_batch(task: Detection) -> None:
    sizes = {tuple(task.view[i][0].shape) for i in range(len(task.view))}
    assert len(sizes) > 1
    alone, together = detect(task, 1), detect(task, len(task.view))
    assert alone.keys() == together.keys() == set(task.view.image_ids.tolist())
    for image, found in alone.items():
        assert len(found) > 0
        for expected, actual in zip(best(found), best(together[image]), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def best(found: list[dict[str, Any]]) -> list[Tensor]:
    """Boxes and scores of the best twenty."""
    return [torch.tensor([*each["bbox"], each["score"]]) for each in found[:20]]


def test_the_order_of_images_changes_no_byte(task: Detection, tmp_path: Path) -> None:
    """Several processes hand their images over in whatever order."""
    written = []
    for name, order in (("forwards", 1), ("backwards", -1)):
        (tmp_path / name).mkdir()
        detect(task, 1, order)
        scores = task.score(tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*.*") if path.is_file())
        written.append((scores, [path.name for path in files], [p.read_bytes() for p in files]))
    np.testing.assert_equal(written[0], written[1])


def test_score_writes_what_can_be_scored_again(task: Detection, tmp_path: Path) -> None:
    detect(task, 4)
    scores = task.score(tmp_path)
    with_masks = isinstance(task.network, MaskRCNN)
    prefixes = ("val/", "val/mask_") if with_masks else ("val/",)
    assert list(scores) == [f"{prefix}{name}" for prefix in prefixes for name in NAMES]
    for picture in ("predictions", "precision_recall"):
        with Image.open(tmp_path / "pictures" / f"{picture}.png") as sheet:
            assert sheet.width > 500
        (tmp_path / "pictures" / f"{picture}.png").unlink()
    np.testing.assert_equal(score_saved(task.view, tmp_path), scores)
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def imperfect(view: Any) -> list[dict[str, Any]]:
    """The true objects with boxes moved, masks cut, and some taken for another class."""
    rng = np.random.default_rng(0)
    sizes = {each["id"]: (each["height"], each["width"]) for each in view.ground_truth["images"]}
    found = []
    for each in view.ground_truth["annotations"]:
        for _ in range(2):
            height, width = sizes[each["image_id"]]
            left, top, wide, high = (np.array(each["bbox"]) + rng.uniform(0, 5, 4)).tolist()
            mask = np.zeros((height, width), np.uint8, order="F")
            mask[int(top) : int(top + high), int(left) : int(left + wide)] = 1
            lengths = mask_api.encode(mask)
            found.append(
                {
                    "image_id": each["image_id"],
                    "category_id": each["category_id"] if rng.random() < 0.7 else 90,
                    "bbox": [left, top, wide, high],
                    "score": round(rng.random(), 1),
                    "segmentation": {**lengths, "counts": lengths["counts"].decode()},
                }
            )
    return found


def reference(view: Any, found: list[dict[str, Any]], kind: str) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(view.ground_truth))
        truth.createIndex()
        # With a box, pycocotools would take a mask's size from it.
        unused = "bbox" if kind == "segm" else "segmentation"
        rows = [{key: row[key] for key in row if key != unused} for row in found]
        evaluator = COCOeval(truth, truth.loadRes(rows), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def test_scores_and_tables_equal_pycocotools(tmp_path: Path) -> None:
    tree = Coco("coco", str(write_coco_tree(tmp_path)), None, None, 0.0)
    view = tree.detection("val", masks=True)
    found = imperfect(view)
    (tmp_path / "predictions.json").write_text(json.dumps(found))
    scores = score_saved(view, tmp_path)
    table = pd.read_csv(tmp_path / "per_class.csv")
    curves = pd.read_csv(tmp_path / "precision_recall.csv")
    assert table["class"].tolist() == ["kind1", "kind3", "kind90"]
    assert curves["recall"].tolist() == pytest.approx(np.linspace(0, 1, 101).tolist())
    for prefix, kind in (("", "bbox"), ("mask_", "segm")):
        theirs = reference(view, found, kind)
        mine = [scores[f"val/{prefix}{name}"] for name in NAMES]
        assert np.nan_to_num(mine, nan=-1) == pytest.approx(theirs.stats, abs=1e-9)
        assert 0.1 < mine[0] < 0.9
        precision = theirs.eval["precision"][..., 0, -1]
        assert table[f"{prefix}AP"].tolist() == pytest.approx(precision.mean((0, 1)), abs=1e-9)
        assert table[f"{prefix}AP50"].tolist() == pytest.approx(precision[0].mean(0), abs=1e-9)
        for name, place in (("50", 0), ("75", 5)):
            column = curves[f"{prefix}precision{name}"]
            assert column.tolist() == pytest.approx(precision[place].mean(1), abs=1e-9)
    # By hand from the tree: boxes and images of each class, the crowd of kind3 left out, and of
    # kind90 the box without height.
    assert table["boxes"].tolist() == [4, 4, 2]
    assert table["images"].tolist() == [4, 4, 2]


def test_a_class_without_objects_is_empty_and_nothing_found_scores_zero(tmp_path: Path) -> None:
    view = Coco("coco", str(write_coco_tree(tmp_path)), None, None, 0.0).detection(
        "val", masks=True
    )
    kept = [a for a in view.ground_truth["annotations"] if a["category_id"] != 3]
    view.ground_truth["annotations"] = kept
    (tmp_path / "predictions.json").write_text("[]")
    scores = score_saved(view, tmp_path)
    assert scores["val/AP"] == scores["val/mask_AP"] == 0
    table = pd.read_csv(tmp_path / "per_class.csv")
    assert table["AP"].isna().tolist() == [False, True, False]
    assert table["boxes"].tolist() == [4, 0, 2]
    assert pd.read_csv(tmp_path / "precision_recall.csv").isna().sum().sum() == 0


def scene(box: list[int], label: int, colour: list[float]) -> tuple[Tensor, dict[str, Tensor]]:
    """A rectangle on dark ground, 64 x 64."""
    left, top, right, bottom = box
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, top:bottom, left:right] = True
    image = torch.full((3, 64, 64), 0.1)
    image[:, top:bottom, left:right] = torch.tensor(colour)[:, None, None]
    target = {
        "boxes": torch.tensor([box], dtype=torch.float32),
        "labels": torch.tensor([label]),
        "masks": mask,
        "image_id": torch.tensor(label + 1),
        "size": torch.tensor([64, 64]),
    }
    return image, target


SCENES = [scene([8, 12, 40, 44], 0, [0.9, 0.2, 0.1]), scene([20, 16, 56, 50], 1, [0.1, 0.3, 0.9])]


def train(network: nn.Module, steps: int, rate: float) -> list[dict[str, float]]:
    """The losses at each step."""
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.2)
    images, targets = collate(SCENES)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        parts = network(images, targets)
        sum(parts.values()).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append({name: part.item() for name, part in parts.items()})
    return losses


def score_scenes(network: nn.Module) -> dict[Kind, float]:
    """AP on `SCENES`, of boxes and where there are masks of these."""
    task = Detection(network.eval(), None, SimpleNamespace(category_ids=[5, 9]))
    with torch.no_grad():
        task.validation_step(collate(SCENES), 0)
    found = [each for _, of_image in task.results for each in of_image]
    annotations = []
    for number, (_, target) in enumerate(SCENES, start=1):
        left, top, right, bottom = target["boxes"][0].tolist()
        lengths = mask_api.encode(np.asfortranarray(target["masks"][0], np.uint8))
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": (5, 9)[number - 1],
                "bbox": [left, top, right - left, bottom - top],
                "area": float(target["masks"].sum()),
                "iscrowd": 0,
                "segmentation": {**lengths, "counts": lengths["counts"].decode()},
            }
        )
    truth = {
        "images": [{"id": number, "height": 64, "width": 64} for number in (1, 2)],
        "categories": [{"id": 5, "name": "red"}, {"id": 9, "name": "blue"}],
        "annotations": annotations,
    }
    kinds: list[Kind] = ["bbox", "segm"] if "segmentation" in found[0] else ["bbox"]
    return {kind: evaluate(truth, found, kind).scores["AP"] for kind in kinds}


@pytest.mark.parametrize(
    ("build", "steps", "rate"),
    [(RetinaNet, 70, 1e-3), (partial(DETR, queries=4, layers=2, dropout=0.0), 150, 5e-4)],
    ids=["RetinaNet", "DETR"],
)
def test_two_scenes_are_learned_by_heart(build: Any, steps: int, rate: float) -> None:
    """From the loss over the task to the score, every part must be right for that."""
    torch.manual_seed(0)
    network = build(Pyramid(), 2).train()
    train(network, steps, rate)
    assert score_scenes(network)["bbox"] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "rate", "kinds"),
    [
        (RetinaNet, 1e-3, {"bbox"}),
        (partial(MaskRCNN, regions=16, proposals=100), 3e-4, {"bbox", "segm"}),
    ],
    ids=["RetinaNet", "Mask R-CNN"],
)
def test_two_scenes_are_learned_by_heart_on_pvt(build: Any, rate: float, kinds: set[Kind]) -> None:
    torch.manual_seed(0)
    backbone = create(
        "pvt_tiny",
        features=True,
        depths=[1, 1, 1, 1],
        channels=[16, 32, 40, 64],
        mlp_ratios=[2, 2, 2, 2],
        drop_path=0.0,
    )
    network = build(backbone, 2).train()
    train(network, 300, rate)
    scores = score_scenes(network)
    assert scores.keys() == kinds
    assert min(scores.values()) >= 0.95, scores


def test_the_losses_of_mask_rcnn_fall() -> None:
    """By heart takes it some minutes: that is among the slow tests.

    That of boxes may rise: the first boxes to be fitted are true ones that need no change.
    """
    torch.manual_seed(0)
    first, *_, last = train(MaskRCNN(Pyramid(), 2, regions=16, proposals=50).train(), 20, 3e-4)
    for part in ("objectness", "classification", "mask"):
        assert last[part] < first[part] / 2, part
