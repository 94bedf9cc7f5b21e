"""RetinaNet against torchvision's own, which shares its parts but not its code around them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_assigning import by_rule, iou
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from pvt_bench.networks.batch import normalise_and_pad
from pvt_bench.networks.retinanet import Neck, RetinaNet

CLASSES = 5
RATIOS = (0.5, 1.0, 2.0)
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))


class Pyramid(nn.Module):
    """Four maps from average pooling and a convolution: a backbone that costs nothing."""

    channels = (8, 16, 24, 32)
    strides = (4, 8, 16, 32)
    mean = (0.4, 0.5, 0.6)
    std = (0.2, 0.25, 0.3)

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(3, channels, 1))
            for stride, channels in zip(self.strides, self.channels, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        return [make(images) for make in self.maps]


class Unrounded(AnchorGenerator):
    """torchvision's generator, but for the rounding to whole pixels."""

    def generate_anchors(self, scales: Any, aspect_ratios: Any, *rest: Any) -> Tensor:
        sides = [(s / r**0.5 / 2, s * r**0.5 / 2) for r in aspect_ratios for s in scales]
        return torch.tensor([(-w, -h, w, h) for w, h in sides])


class Named(nn.Module):
    """Backbone and neck as torchvision's detectors take them."""

    out_channels = 256

    def __init__(self, network: RetinaNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        levels = self.network.neck(self.network.backbone(images)[1:])
        return {str(number): level for number, level in enumerate(levels)}


@pytest.fixture
def network() -> RetinaNet:
    torch.manual_seed(0)
    network = RetinaNet(Pyramid(), CLASSES, score_threshold=0.2, candidates=10**6).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.045)
    return network


@pytest.fixture
def oracle(network: RetinaNet) -> TorchvisionRetinaNet:
    # 128 x 192 is divided without rest by P7's stride, so torchvision's strides are right too.
    sizes = tuple(tuple(4 * s * scale for scale in SCALES) for s in (8, 16, 32, 64, 128))
    theirs = TorchvisionRetinaNet(
        Named(network),
        CLASSES,
        min_size=128,
        max_size=192,
        image_mean=list(Pyramid.mean),
        image_std=list(Pyramid.std),
        anchor_generator=Unrounded(sizes, (RATIOS,) * 5),
        score_thresh=0.2,
        topk_candidates=10**6,
        detections_per_img=100,
    ).eval()
    theirs.head.load_state_dict(network.head.state_dict())
    return theirs


def some_images(count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 128, 192, generator=generator) for _ in range(count)]


SIZES = [(128, 192), (60, 70), (90, 100)]
TARGET = {
    "boxes": torch.tensor([[10.0, 12.0, 60.0, 70.0], [80.0, 20.0, 150.0, 120.0]]),
    "labels": torch.tensor([3, 0]),
}


def test_detections_equal_torchvision(network: RetinaNet, oracle: TorchvisionRetinaNet) -> None:
    images = some_images()
    with torch.no_grad():
        ours, theirs = network(images), oracle(images)
    assert sum(len(detected["boxes"]) for detected in ours) > 50
    for mine, their in zip(ours, theirs, strict=True):
        for name in ("boxes", "scores", "labels"):
            torch.testing.assert_close(mine[name], their[name], rtol=1e-4, atol=1e-3)


def test_losses_of_one_image_equal_torchvision(
    network: RetinaNet, oracle: TorchvisionRetinaNet
) -> None:
    """Of one image, as torchvision divides by the positives of each image, the papers' code by
    those of the batch."""
    image = some_images(1)
    ours = network(image, [TARGET])
    theirs = oracle.train()(image, [TARGET])
    assert ours["classification"].item() == pytest.approx(theirs["classification"].item(), rel=1e-5)
    assert ours["box"].item() == pytest.approx(theirs["bbox_regression"].item(), rel=1e-5)


def anchors_by_hand(grid: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Anchors (A, 4) of five maps, and the pixels (A, 2) in which the cell of each begins."""
    anchors, cells = [], []
    for (rows, columns), stride in zip(grid, (8, 16, 32, 64, 128), strict=True):
        for row in range(rows):
            for column in range(columns):
                for ratio in RATIOS:
                    for scale in SCALES:
                        width, height = (4 * stride * scale * ratio**e for e in (-0.5, 0.5))
                        x, y = column * stride, row * stride
                        anchors.append(
                            (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                        )
                        cells.append((x, y))
    return np.array(anchors), np.array(cells)


def losses_by_hand(
    logits: np.ndarray, deltas: np.ndarray, sizes: list[tuple[int, int]], targets: list[Any]
) -> tuple[float, float]:
    """Focal loss and L1 loss by their formulas, of a batch of 128 x 192 pixels."""
    anchors, cells = anchors_by_hand([(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)])
    classification = box = count = 0.0
    for scores, shifts, (height, width), target in zip(logits, deltas, sizes, targets, strict=True):
        # Only cells that begin within the image's own padding to multiples of 32.
        own = (cells[:, 0] < math.ceil(width / 32) * 32) & (
            cells[:, 1] < math.ceil(height / 32) * 32
        )
        boxes = target["boxes"].double().numpy()
        ious = np.array([[iou(box, anchor) for anchor in anchors[own]] for box in boxes])
        matches = by_rule(ious.reshape(len(boxes), own.sum()), 0.5, 0.4, 0.0)
        for anchor, score, shift, match in zip(
            anchors[own], scores[own], shifts[own], matches, strict=True
        ):
            for label in range(CLASSES if match != -2 else 0):
                p = 1 / (1 + math.exp(-score[label]))
                if match >= 0 and target["labels"][match] == label:
                    classification -= 0.25 * (1 - p) ** 2 * math.log(p)
                else:
                    classification -= 0.75 * p**2 * math.log(1 - p)
            if match >= 0:
                (centre, side), (wanted, wanted_side) = (
                    ((corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2])
                    for corners in (anchor, boxes[match])
                )
                truth = [*((wanted - centre) / side), *np.log(wanted_side / side)]
                box += np.abs(truth - shift).sum()
        count += max(1, sum(match >= 0 for match in matches))
    return classification / count, box / count


def test_losses_of_a_batch_are_those_of_the_release(network: RetinaNet) -> None:
    """Images of three sizes, one without boxes: it counts one positive. Boxes overlap each other,
    and a small image has no anchors where only larger ones have cells."""
    images = [some_images(1)[0][:, :height, :width] for height, width in SIZES]
    few = {"boxes": torch.tensor([[30.0, 8.0, 60.0, 50.0]]), "labels": torch.tensor([1])}
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    overlapping = {
        "boxes": torch.cat([TARGET["boxes"], torch.tensor([[12.0, 14.0, 60.0, 66.0]])]),
        "labels": torch.tensor([3, 0, 2]),
    }
    targets = [overlapping, few, nothing]
    with torch.no_grad():
        outputs, losses = network.outputs(images), network(images, targets)
    classification, box = losses_by_hand(
        outputs["cls_logits"].double().numpy(),
        outputs["bbox_regression"].double().numpy(),
        SIZES,
        targets,
    )
    assert losses["classification"].item() == pytest.approx(classification, rel=1e-4)
    assert losses["box"].item() == pytest.approx(box, rel=1e-4)


def test_a_batch_without_objects_counts_an_anchor_an_image(network: RetinaNet) -> None:
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    images = some_images(1) * 2
    one, two = network(images[:1], [empty]), network(images, [empty] * 2)
    assert one["box"] == two["box"] == 0
    assert two["classification"].item() == pytest.approx(one["classification"].item(), rel=1e-5)


def test_the_best_anchors_of_a_level_are_kept_with_all_their_classes(network: RetinaNet) -> None:
    """As in the release of 2021; the two best pairs of a level would be of one anchor."""
    network.candidates, network.score_threshold, network.nms_iou = 2, 0.3, 1.0
    # Scores of classes by anchor, in two levels; 0.2 is below the threshold.
    scores = torch.tensor([[0.9, 0.8, 0.7], [0.6, 0.2, 0.5], [0.4, 0.55, 0.1], [0.2, 0.35, 0.2]])
    anchors = torch.tensor([[10.0 * i, 0.0, 10.0 * i + 8, 8.0] for i in range(4)])
    levels = [anchors[:3], anchors[3:]]
    found = network._detect(scores.logit(), torch.zeros(4, 4), levels, (64, 96))
    pairs = zip(found["boxes"][:, 0].tolist(), found["labels"].tolist(), strict=True)
    # Of the first level the anchors 0 and 1, not 2; of the second all it has.
    assert list(pairs) == [(0, 0), (0, 1), (0, 2), (10, 0), (10, 2), (30, 1)]
    expected = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.35])
    torch.testing.assert_close(found["scores"], expected)


def test_an_image_is_detected_alike_alone_and_in_a_padded_batch(network: RetinaNet) -> None:
    small, large = torch.rand(3, 64, 96), torch.rand(3, 128, 192)
    with torch.no_grad():
        batched = network([large, small])[1]
    assert batched["boxes"][:, [0, 2]].max() <= 96
    assert batched["boxes"][:, [1, 3]].max() <= 64


@pytest.mark.parametrize("size", [(800, 1344), (96, 96), (320, 416)])
def test_anchors_lie_on_the_strides_of_the_pyramid(
    network: RetinaNet, size: tuple[int, int]
) -> None:
    """Centres by hand: cell (i, j) of a level of stride s lies at (j s, i s)."""
    grid = [[math.ceil(side / stride) for side in size] for stride in network._anchors.strides]
    levels = network._anchors(grid, torch.device("cpu"))
    for (rows, columns), stride, anchors in zip(
        grid, network._anchors.strides, levels, strict=True
    ):
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        expected = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1) * stride
        torch.testing.assert_close(centres, expected.repeat_interleave(9, 0).float())
        areas = (anchors[:9, 2:] - anchors[:9, :2]).prod(1)
        by_hand = torch.tensor([(4 * stride * scale) ** 2 for _ in RATIOS for scale in SCALES])
        torch.testing.assert_close(areas, by_hand)


def test_anchors_are_not_rounded(network: RetinaNet) -> None:
    grid = [(2, 3), (1, 2), (1, 1), (1, 1), (1, 1)]
    levels = network._anchors(grid, torch.device("cpu"))
    by_hand, _ = anchors_by_hand(grid)
    torch.testing.assert_close(
        torch.cat(levels).double(), torch.from_numpy(by_hand), rtol=1e-6, atol=1e-5
    )
    width, height = (levels[0][0, 2:] - levels[0][0, :2]).tolist()
    assert (width, height) == pytest.approx((45.2548, 22.6274), abs=1e-4)


def test_p6_comes_from_c5_even_at_256_channels_and_p7_from_p6_as_it_is() -> None:
    neck = Neck([64, 160, 256])
    maps = [torch.randn(1, c, s, s) for c, s in ((64, 16), (160, 8), (256, 4))]
    *_, p6, p7 = neck(maps)
    torch.testing.assert_close(p6, neck.extra_blocks.p6(maps[-1]))
    assert p6.min() < 0
    weight, bias = neck.extra_blocks.p7.weight, neck.extra_blocks.p7.bias
    padded = nn.functional.pad(p6, (1, 1, 1, 1))[0]
    corner = (padded[:, :3, :3] * weight).sum((1, 2, 3)) + bias
    torch.testing.assert_close(p7[0, :, 0, 0], corner, rtol=1e-4, atol=1e-5)


def test_weights_start_as_in_the_release() -> None:
    """The neck's Xavier uniform, the head's normal; at the start every score is 0.01."""
    torch.manual_seed(0)
    network = RetinaNet(Pyramid(), CLASSES)
    for convolution in (m for m in network.neck.modules() if isinstance(m, nn.Conv2d)):
        outputs, inputs, *kernel = convolution.weight.shape
        bound = math.sqrt(6 / ((inputs + outputs) * math.prod(kernel)))
        assert 0.99 * bound < convolution.weight.abs().max() <= bound
        assert convolution.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
        assert convolution.bias.abs().max() == 0
    head = network.head.state_dict()
    prior = head.pop("classification_head.cls_logits.bias")
    torch.testing.assert_close(prior.sigmoid(), torch.full_like(prior, 0.01))
    for name, parameter in head.items():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        else:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.03), name


def test_images_are_normalised_and_padded_with_the_mean() -> None:
    images = [torch.rand(3, 30, 65), torch.rand(3, 33, 40)]
    batch = normalise_and_pad(images, (0.1, 0.2, 0.3), (0.5, 0.5, 2.0))
    assert batch.shape == (2, 3, 64, 96)
    torch.testing.assert_close(batch[1, 2, :33, :40], (images[1][2] - 0.3) / 2.0)
    assert batch[1, :, 33:].abs().max() == 0
    assert batch[0, :, :, 65:].abs().max() == 0
