"""Costs against the published figures, a hand formula, and a second counter."""

import pytest
import torch
from torch import Tensor, nn

from pvt_bench.backbones import create, freeze
from pvt_bench.measure.cost import measure_cost, measure_with_fvcore
from pvt_bench.networks.retinanet import RetinaNet


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create(name, **options)


# Table 2 of arXiv 2102.12122, as printed.
@pytest.mark.parametrize(
    ("name", "params", "gflops"),
    [
        ("pvt_tiny", 13.2, 1.9),
        ("pvt_small", 24.5, 3.8),
        ("pvt_medium", 44.2, 6.7),
        ("pvt_large", 61.4, 9.8),
    ],
)
def test_classifiers_cost_what_was_published(name: str, params: float, gflops: float) -> None:
    cost = measure_cost(on_meta(name), (224, 224))
    assert cost.params_m == pytest.approx(params, abs=0.05)
    assert cost.gflops == pytest.approx(gflops, abs=0.05)
    theirs, _ = measure_with_fvcore(create(name), (224, 224))
    assert cost.gflops == pytest.approx(theirs, rel=0.01)


# Tables 3 and 11 of arXiv 2102.12122: parameters and GFLOPs at 800 x 1280 on COCO's 80 classes.
@pytest.mark.parametrize(
    ("name", "params", "gflops", "stages"),
    [("pvt_small", 34.2, 285.8, 0), ("resnet50", 37.7, 239.3, 1)],
)
def test_retinanet_costs_what_was_published(
    name: str, params: float, gflops: float, stages: int
) -> None:
    with torch.device("meta"):
        network = RetinaNet(create(name, features=True), 80)
    freeze(network.backbone, stages, batch_norm=stages > 0)
    cost = measure_cost(network, (800, 1280))
    assert cost.params_m == pytest.approx(params, abs=0.05)
    assert cost.gflops == pytest.approx(gflops, rel=0.003)
    assert not cost.uncounted
    for figure in ("params_m", "params_all_m", "gflops"):
        parts = sum(cost.parts[part][figure] for part in ("backbone", "neck", "head"))
        assert parts == pytest.approx(getattr(cost, figure), rel=1e-6)


@pytest.mark.parametrize("name", ["pvt_small", "resnet50"])
def test_two_counters_agree_on_retinanet(name: str) -> None:
    network = RetinaNet(create(name, features=True), 80)
    theirs, activations = measure_with_fvcore(network, (320, 416))
    with torch.device("meta"):
        shapes = RetinaNet(create(name, features=True), 80)
    assert measure_cost(shapes, (320, 416)).gflops == pytest.approx(theirs, rel=0.01)
    assert activations > 1


def test_a_cost_says_the_padded_size_that_it_was_counted_at() -> None:
    with torch.device("meta"):
        network = RetinaNet(create("resnet18", features=True), 10)
    padded, whole = measure_cost(network, (90, 65)), measure_cost(network, (96, 96))
    assert padded.size == whole.size == (96, 96)
    assert padded.gflops == whole.gflops
    theirs, _ = measure_with_fvcore(RetinaNet(create("resnet18", features=True), 10), (96, 96))
    assert whole.gflops == pytest.approx(theirs, rel=0.01)
    assert not network.backbone._forward_pre_hooks


def test_one_convolution_by_hand() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Conv2d(3, 8, 3, padding=1)
            self.head = nn.Linear(8, 5, bias=False)
            self.backbone.weight.requires_grad = False

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.backbone(images).mean((2, 3)))

    with torch.device("meta"):
        network = Network()
    cost = measure_cost(network, (10, 20))
    assert cost.parts["backbone"]["gflops"] == pytest.approx(10 * 20 * 3 * 8 * 9 / 1e9)
    assert cost.parts["head"]["gflops"] == pytest.approx(8 * 5 / 1e9)
    assert cost.params_all_m == pytest.approx((3 * 8 * 9 + 8 + 40) / 1e6)
    assert cost.params_m == pytest.approx((8 + 40) / 1e6)


def test_fvcore_activations_by_hand() -> None:
    """One convolution of 8 x 10 x 20 and one product of 5."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    _, activations = measure_with_fvcore(network, (10, 20))
    assert activations == pytest.approx((8 * 10 * 20 + 5) / 1e6)


def test_operators_of_weight_that_are_not_counted_are_named() -> None:
    class Fourier(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.fft.rfft2(images).abs().mean((2, 3)).softmax(-1)

    cost = measure_cost(Fourier(), (16, 16))
    assert list(cost.uncounted) == ["aten._fft_r2c"]
