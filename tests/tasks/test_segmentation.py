"""The segmentation task: from logits to scores in the pixels of the files."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from test_retinanet import Pyramid
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.backbones import create
from pvt_bench.builders import build_module, build_skeleton
from pvt_bench.config.folders import config_dir
from pvt_bench.config.registry import register
from pvt_bench.datasets.loading import collate
from pvt_bench.errors import InputError
from pvt_bench.measure.segmentation import by_class, count_pixels, segmentation_scores
from pvt_bench.networks.semantic_fpn import SemanticFPN
from pvt_bench.networks.trans2seg import Trans2Seg
from pvt_bench.tasks.segmentation import Segmentation, score_saved

NAMES = ["wall", "sky", "floor", "tree", "road"]
# Sizes of the files; each image is shown at another size.
SIZES = ((50, 75), (41, 64), (64, 96), (50, 75), (70, 33))


class Scenes:
    """A view of random images whose truth has blocks of labels and ignored ones."""

    num_classes = len(NAMES)
    class_names = NAMES

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        height, width = SIZES[index]
        generator = torch.Generator().manual_seed(index)
        blocks = torch.randint(len(NAMES) + 1, (1, 1, 4, 4), generator=generator).float()
        segments = F.interpolate(blocks, size=(height, width))[0, 0].to(torch.uint8)
        segments[segments == len(NAMES)] = 255
        image = torch.rand(3, 64 if index % 2 else 96, 96, generator=generator)
        return image, {
            "image_id": torch.tensor(10 - index),
            "size": torch.tensor([height, width]),
            "segments": segments,
        }


@pytest.fixture
def network() -> SemanticFPN:
    torch.manual_seed(0)
    network = SemanticFPN(Pyramid(), len(NAMES)).eval()
    # Centred, so that the labels differ from pixel to pixel.
    classifier = network.head.classifier
    nn.init.normal_(classifier.weight)
    with torch.no_grad():
        classifier.bias -= network.outputs(Scenes()[0][0][None]).mean((0, 2, 3))
    return network


def validate(task: Segmentation, batches: list[list[int]]) -> Segmentation:
    task.on_validation_start()
    with torch.no_grad():
        for indices in batches:
            task.validation_step(collate([task.view[i] for i in indices]), 0)
    task.on_validation_end()
    return task


def test_scores_equal_a_direct_count() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (37, 53)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 5, truth.shape))
    truth[:5] = 255
    matrix = count_pixels(truth, predicted.astype(np.uint8), 7)
    counted = truth != 255
    iou, accuracy = [], []
    for label in range(7):
        true, found = (truth == label) & counted, (predicted == label) & counted
        if (true | found).any():
            iou.append((true & found).sum() / (true | found).sum())
        if true.any():
            accuracy.append((true & found).sum() / true.sum())
    # Class 4 is predicted but not true; 5 and 6 are neither.
    assert (len(iou), len(accuracy)) == (5, 4)
    scores = segmentation_scores(matrix)
    assert scores["mIoU"] == pytest.approx(np.mean(iou), abs=1e-9)
    assert scores["mAcc"] == pytest.approx(np.mean(accuracy), abs=1e-9)
    assert scores["aAcc"] == pytest.approx((truth == predicted)[counted].mean(), abs=1e-9)
    assert np.isnan(by_class(matrix)[0]).tolist() == [False] * 5 + [True] * 2
    assert matrix.dtype == np.int64


def test_no_counted_pixel_has_no_score() -> None:
    truth = np.full((4, 4), 255, np.uint8)
    scores = segmentation_scores(count_pixels(truth, np.zeros_like(truth), 3))
    assert np.isnan(list(scores.values())).all()


def test_results_do_not_depend_on_the_batch_or_the_order(network: SemanticFPN) -> None:
    alone = validate(Segmentation(network, None, Scenes()), [[i] for i in range(5)]).results
    together = validate(Segmentation(network, None, Scenes()), [[4, 2, 0], [3, 1]]).results
    assert [image_id for image_id, _ in alone] == [6, 7, 8, 9, 10]
    for (image, one), (same, other) in zip(alone, together, strict=True):
        assert image == same
        assert one[0] == other[0]
        assert len(np.unique(one[1] % len(NAMES))) > 2, "too few labels to tell a difference"
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[2], other[2])


def test_score_writes_what_can_be_scored_again(network: SemanticFPN, tmp_path: Path) -> None:
    view = Scenes()
    task = validate(Segmentation(network, None, view), [[0, 1, 2, 3, 4]])
    scores = task.score(tmp_path)
    table = pd.read_csv(tmp_path / "per_class.csv")
    matrix = pd.read_csv(tmp_path / "confusion.csv", index_col=0)
    assert next(iter(scores)) == "val/mIoU"
    assert table["class"].tolist() == NAMES == matrix.index.tolist()
    assert table["IoU"].mean() == pytest.approx(scores["val/mIoU"])
    counted = sum(int((view[i][1]["segments"] != 255).sum()) for i in range(len(view)))
    assert table["pixels"].sum() == matrix.to_numpy().sum() == counted
    for name in ("confusion", "predictions"):
        with Image.open(tmp_path / "pictures" / f"{name}.png") as picture:
            assert picture.width > 400
    (tmp_path / "per_class.csv").unlink()
    assert score_saved(view, tmp_path) == scores
    assert pd.read_csv(tmp_path / "per_class.csv").equals(table)


def test_predictions_are_png_in_the_values_of_ade20k(network: SemanticFPN, tmp_path: Path) -> None:
    """At the size of the file, by an independent resizing of the logits; labels count from 1."""
    view = Scenes()
    validate(Segmentation(network, None, view), [[0, 1, 2, 3, 4]]).score(tmp_path)
    image, _ = view[1]
    with torch.no_grad():
        logits = network([image])[0]
    resize = nn.Upsample(size=SIZES[1], mode="bilinear", align_corners=False)
    expected = resize(logits[None])[0].argmax(0) + 1
    with Image.open(tmp_path / "predictions" / "9.png") as saved:
        assert saved.mode == "L"
        np.testing.assert_array_equal(np.asarray(saved), expected.numpy())


def test_scales_and_mirrored_images_are_averaged(network: SemanticFPN) -> None:
    image, _ = Scenes()[0]
    size = SIZES[0]
    task = Segmentation(network, None, Scenes(), scales=[0.5, 1.0], flip_test=True)

    def probabilities(shown: Tensor, mirrored: bool) -> Tensor:
        logits = network([shown.flip(-1) if mirrored else shown])[0]
        logits = logits.flip(-1) if mirrored else logits
        return F.interpolate(logits[None], size=size, mode="bilinear")[0].softmax(0)

    small = F.interpolate(image[None], size=(64, 64), mode="bilinear", antialias=True)[0]
    with torch.no_grad():
        total = sum(probabilities(x, m) for x in (small, image) for m in (False, True)) / 4
        assert (task.segment(image, size) == total.argmax(0)).float().mean() > 0.999
        single = Segmentation(network, None, Scenes()).segment(image, size)
        assert (single != total.argmax(0)).any()
        mirrored = task.segment(image.flip(-1), size).flip(-1)
    # Shown both ways, an image and its mirror image are segmented alike, but for rounding.
    assert (mirrored == task.segment(image, size)).float().mean() > 0.999


@pytest.mark.parametrize("scales", [[], [0.0], [1.0, -0.5]])
def test_unusable_scales_are_refused(network: SemanticFPN, scales: list[float]) -> None:
    with pytest.raises(InputError, match=r"task\.module\.scales"):
        Segmentation(network, None, Scenes(), scales=scales)


def test_saved_predictions_that_do_not_fit_are_named(network: SemanticFPN, tmp_path: Path) -> None:
    view = Scenes()
    validate(Segmentation(network, None, view), [[0, 1, 2, 3, 4]]).score(tmp_path)
    path = tmp_path / "predictions" / "9.png"
    Image.new("L", (7, 5), 1).save(path)
    with pytest.raises(InputError, match=r"9\.png has \(5, 7\) pixels"):
        score_saved(view, tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"9\.png cannot be read"):
        score_saved(view, tmp_path)


@pytest.mark.parametrize("name", ["ade20k_semantic_fpn", "ade20k_trans2seg"])
def test_the_configured_task_is_built(name: str) -> None:
    register()
    words = [f"task={name}", "model=pvt_tiny", "mode=cost", "schedule=coco_retinanet_digits"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", words)
    network = build_skeleton(config)
    module = build_module(config, network, None, Scenes())
    assert isinstance(module, Segmentation)
    assert module.shown == [(1.0, False)]


def two_scenes() -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Discs and boxes of a class each on a canvas, in noisy colours."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    samples = []
    for index, (row, column) in enumerate(((24, 30), (40, 60))):
        segments = torch.zeros(64, 96, dtype=torch.uint8)
        segments[(y - row) ** 2 + (x - column) ** 2 < 18**2] = 1
        segments[(y - 40 + row // 2).abs() + (x - 90 + column // 2).abs() < 14] = 2
        colours = torch.tensor([[0.3, 0.3, 0.3], [0.7, 0.3, 0.3], [0.3, 0.7, 0.4]])
        image = colours[segments.long()].permute(2, 0, 1)
        image = (image + 0.1 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
        target = {"segments": segments, "size": torch.tensor([64, 96])}
        samples.append((image, {**target, "image_id": torch.tensor(index)}))
    return samples


@pytest.mark.parametrize(("kind", "steps"), [("semantic_fpn", 80), ("trans2seg", 240)])
def test_two_images_are_learned_by_heart(kind: str, steps: int) -> None:
    torch.manual_seed(0)
    backbone = create(
        "pvt_tiny",
        features=True,
        depths=[1, 1, 1, 1],
        channels=[16, 32, 40, 64],
        mlp_ratios=[2, 2, 2, 2],
        drop_path=0.0,
    )
    network: nn.Module = SemanticFPN(backbone, 3)
    if kind == "trans2seg":
        network = Trans2Seg(backbone, 3, width=32, depth=2, heads=4, conv_width=16, grid=2)
    samples = two_scenes()
    view = SimpleNamespace(num_classes=3, class_names=["canvas", "disc", "diamond"])
    task = Segmentation(network, None, view)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        task.training_step(collate(samples), 0)["loss"].backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        task.validation_step(collate(samples), 0)
    matrix = np.zeros((3, 3), np.int64)
    for _, (_, cells, counts) in task.results:
        matrix.ravel()[cells] += counts
    assert segmentation_scores(matrix)["mIoU"] >= 0.95
