"""RetinaNet against torchvision's own, which shares its parts but not its code around them."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from pvt_bench.networks.batch import normalise_and_pad
from pvt_bench.networks.retinanet import RATIOS, SCALES, Neck, RetinaNet

CLASSES = 5


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
    network = RetinaNet(Pyramid(), CLASSES, score_threshold=0.2).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.05)
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
        anchor_generator=AnchorGenerator(sizes, (RATIOS,) * 5),
        score_thresh=0.2,
        topk_candidates=1000,
        detections_per_img=100,
    ).eval()
    theirs.head.load_state_dict(network.head.state_dict())
    return theirs


def some_images(count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 128, 192, generator=generator) for _ in range(count)]


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


def test_losses_are_over_the_positives_of_the_batch(network: RetinaNet) -> None:
    images = some_images()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    both = network(images, [TARGET, empty])
    alone = network(images[:1], [TARGET])
    assert both["box"].item() == pytest.approx(alone["box"].item(), rel=1e-5)
    assert both["classification"] > alone["classification"]
    assert all(torch.isfinite(loss) for loss in network(images[1:], [empty]).values())


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
    grid = [[math.ceil(side / stride) for side in size] for stride in network.strides]
    levels = network._anchors(grid, torch.zeros(()))
    for (rows, columns), stride, anchors in zip(grid, network.strides, levels, strict=True):
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        expected = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1) * stride
        torch.testing.assert_close(centres, expected.repeat_interleave(9, 0).float())
        areas = (anchors[:9, 2:] - anchors[:9, :2]).prod(1)
        by_hand = torch.tensor([(4 * stride * scale) ** 2 for _ in RATIOS for scale in SCALES])
        # torchvision rounds the corners of each anchor to whole pixels.
        torch.testing.assert_close(areas, by_hand, rtol=0.1, atol=0)


def test_p6_comes_from_c5_even_at_256_channels() -> None:
    neck = Neck([64, 160, 256])
    maps = [torch.rand(1, c, s, s) for c, s in ((64, 16), (160, 8), (256, 4))]
    torch.testing.assert_close(neck(maps)[3], neck.extra_blocks.p6(maps[-1]))


def test_images_are_normalised_and_padded_with_the_mean() -> None:
    images = [torch.rand(3, 30, 65), torch.rand(3, 33, 40)]
    batch = normalise_and_pad(images, (0.1, 0.2, 0.3), (0.5, 0.5, 2.0))
    assert batch.shape == (2, 3, 64, 96)
    torch.testing.assert_close(batch[1, 2, :33, :40], (images[1][2] - 0.3) / 2.0)
    assert batch[1, :, 33:].abs().max() == 0
    assert batch[0, :, :, 65:].abs().max() == 0
