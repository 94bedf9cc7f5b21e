"""What the detection task hands to COCO's evaluator."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from coco_tree import write_coco_tree
from PIL import Image
from test_retinanet import Pyramid
from torch import Tensor, nn

from pvt_bench.datasets.coco import Coco
from pvt_bench.datasets.loading import collate
from pvt_bench.networks.retinanet import RetinaNet
from pvt_bench.tasks.detection import Detection


def test_boxes_return_to_the_pixels_of_the_file() -> None:
    """An image of 50 x 100 that was shown at 100 x 200 pixels."""

    class Finds(nn.Module):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            box = torch.tensor([[20.0, 10.0, 60.0, 40.0]])
            found = {"boxes": box, "scores": torch.tensor([0.5]), "labels": torch.tensor([1])}
            return [found for _ in images]

    view = SimpleNamespace(category_ids=[3, 90])
    task = Detection(Finds(), None, view)
    target = {"image_id": torch.tensor(7), "size": torch.tensor([50, 100])}
    task.validation_step(([torch.zeros(3, 100, 200)], [target]), 0)
    assert task.found == [
        {"image_id": 7, "category_id": 90, "bbox": [10.0, 5.0, 20.0, 15.0], "score": 0.5}
    ]


@pytest.fixture
def task(tmp_path: Path) -> Detection:
    view = Coco("coco", str(write_coco_tree(tmp_path)), 96, 160, 0.0).detection("val")
    torch.manual_seed(0)
    network = RetinaNet(Pyramid(), view.num_classes, score_threshold=0.0).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.05)
    return Detection(network, None, view)


def found_by(task: Detection, batch_size: int) -> dict[int, list[list[float]]]:
    task.on_validation_start()
    with torch.no_grad():
        for first in range(0, len(task.view), batch_size):
            samples = [task.view[i] for i in range(len(task.view))[first : first + batch_size]]
            task.validation_step(collate(samples), 0)
    found: dict[int, list[list[float]]] = {}
    for result in task.found:
        found.setdefault(result["image_id"], []).append([*result["bbox"], result["score"]])
    return found


def test_what_is_found_does_not_depend_on_the_batch(task: Detection) -> None:
    sizes = {tuple(task.view[i][0].shape) for i in range(len(task.view))}
    assert len(sizes) > 1
    alone, together = found_by(task, 1), found_by(task, len(task.view))
    assert alone.keys() == together.keys() == set(task.view.image_ids.tolist())
    for image, boxes in alone.items():
        expected = torch.tensor(sorted(boxes, key=lambda box: -box[-1])[:20])
        actual = torch.tensor(sorted(together[image], key=lambda box: -box[-1])[:20])
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def test_score_writes_predictions_and_pictures(task: Detection, tmp_path: Path) -> None:
    found_by(task, 4)
    scores = task.score(tmp_path)
    assert 0 <= scores["val/AP"] <= 1
    assert len(scores) == 12
    assert (tmp_path / "predictions.json").stat().st_size > 100
    with Image.open(tmp_path / "pictures" / "predictions.png") as sheet:
        assert sheet.width > 500
