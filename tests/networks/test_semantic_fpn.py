"""Semantic FPN against the published costs, and against its definition written out."""

import math

import pytest
import torch
from test_retinanet import Pyramid
from torch import Tensor, nn

from pvt_bench.backbones import create
from pvt_bench.measure.cost import count_parameters, measure_cost, measure_with_fvcore
from pvt_bench.networks.batch import normalise_and_pad
from pvt_bench.networks.semantic_fpn import SemanticFPN

CLASSES = 5
# mmsegmentation's ResNetV1c, which the published configurations name for the ResNets.
V1C = {"stem_type": "deep", "stem_width": 32}


def on_meta(name: str, **options: object) -> SemanticFPN:
    with torch.device("meta"):
        return SemanticFPN(create(name, features=True, **options), 150)


# Table 5 of arXiv 2102.12122: parameters, and GFLOPs at 512 x 512 on the 150 classes of ADE20K.
@pytest.mark.parametrize(
    ("name", "options", "params", "gflops"),
    [
        ("pvt_tiny", {}, 17.0, 33.2),
        ("pvt_small", {}, 28.2, 44.5),
        ("pvt_medium", {}, 48.0, 61.0),
        ("pvt_large", {}, 65.1, 79.6),
        ("resnet18", V1C, 15.5, 32.2),
        ("resnet50", V1C, 28.5, 45.6),
        ("resnet101", V1C, 47.5, 65.1),
        ("resnext101_32x4d", {}, 47.1, 64.7),
        ("resnext101_64x4d", {}, 86.4, 103.9),
    ],
)
def test_costs_what_was_published(
    name: str, options: dict[str, object], params: float, gflops: float
) -> None:
    network = on_meta(name, **options)
    cost = measure_cost(network, (512, 512))
    assert cost.params_m == pytest.approx(params, abs=0.06)
    assert cost.gflops == pytest.approx(gflops, rel=0.002)
    assert not cost.uncounted
    for figure in ("params_m", "gflops"):
        parts = sum(cost.parts[part][figure] for part in ("backbone", "neck", "head"))
        assert parts == pytest.approx(getattr(cost, figure), rel=1e-6)


def test_the_stem_of_three_convolutions_is_the_difference_of_the_resnets() -> None:
    """At 256 x 256: 3 x 3 with 3-32-32-64 channels and two more norms, for 7 x 7 with 3-64."""
    plain, deep = (
        measure_cost(on_meta("resnet50", **options), (512, 512)) for options in ({}, V1C)
    )
    products = 9 * (3 * 32 + 32 * 32 + 32 * 64) - 49 * 3 * 64
    norms = 2 * 32
    by_hand = 256**2 * (products + 2 * norms) / 1e9
    assert deep.gflops - plain.gflops == pytest.approx(by_hand, rel=1e-6)
    assert deep.params_m - plain.params_m == pytest.approx((products + 2 * norms) / 1e6)


def test_two_counters_agree() -> None:
    network = SemanticFPN(create("pvt_tiny", features=True), 150)
    theirs, _ = measure_with_fvcore(network, (128, 192))
    assert measure_cost(on_meta("pvt_tiny"), (128, 192)).gflops == pytest.approx(theirs, rel=0.01)


@pytest.fixture
def network() -> SemanticFPN:
    torch.manual_seed(0)
    return SemanticFPN(Pyramid(), CLASSES)


def test_logits_have_the_size_of_each_image(network: SemanticFPN) -> None:
    sizes = [(33, 70), (64, 96), (1, 1)]
    images = [torch.rand(3, *size) for size in sizes]
    with torch.no_grad():
        logits = network.eval()(images)
    assert [tuple(each.shape) for each in logits] == [(CLASSES, *size) for size in sizes]
    assert network.outputs(images).shape == (3, CLASSES, 16, 24)


def test_logits_are_the_published_formula(network: SemanticFPN) -> None:
    """Lateral and output convolutions, nearest doublings; then convolutions and bilinear
    doublings to stride 4 and a sum: with torch's modules instead of sizes handed on."""
    image = torch.rand(1, 3, 64, 96)
    network.eval()
    with torch.no_grad():
        maps = network.backbone(normalise_and_pad(image, Pyramid.mean, Pyramid.std))
        inner = [block(each) for block, each in zip(network.neck.inner_blocks, maps, strict=True)]
        for level in (2, 1, 0):
            inner[level] = inner[level] + nn.Upsample(scale_factor=2)(inner[level + 1])
        doubled = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        total = torch.zeros(())
        for level, each in enumerate(inner):
            each = network.neck.layer_blocks[level](each)
            for convolution in network.head.levels[level]:
                each = convolution(each)
                each = doubled(each) if level else each
            total = total + each
        coarse = network.head.classifier(total)
        torch.testing.assert_close(network.outputs(image), coarse)
        fourfold = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
        torch.testing.assert_close(network(image)[0], fourfold(coarse)[0])


def targets(*segments: Tensor) -> list[dict[str, Tensor]]:
    return [{"segments": each} for each in segments]


def test_the_loss_is_divided_by_all_pixels_of_the_batch(network: SemanticFPN) -> None:
    """Those that are ignored and those of the padding too, as in mmsegmentation 0.x."""
    torch.manual_seed(1)
    images = [torch.rand(3, 40, 64), torch.rand(3, 64, 50)]
    segments = [torch.randint(CLASSES, image.shape[-2:], dtype=torch.uint8) for image in images]
    segments[0][:10] = 255
    network.eval()
    loss = network(images, targets(*segments))["cross_entropy"]
    total = 0.0
    for logits, truth in zip(network(images), segments, strict=True):
        counted = truth != 255
        probabilities = logits.softmax(0).permute(1, 2, 0)[counted]
        of_label = probabilities.gather(1, truth[counted][:, None].long())
        total -= of_label.log().sum().item()
    assert loss.item() == pytest.approx(total / (2 * 64 * 64), rel=1e-5)


def test_a_batch_without_a_counted_pixel_trains_nothing(network: SemanticFPN) -> None:
    ignored = torch.full((32, 32), 255, dtype=torch.uint8)
    loss = network([torch.rand(3, 32, 32)] * 2, targets(ignored, ignored))["cross_entropy"]
    loss.backward()
    assert loss.item() == 0
    assert all(torch.all(p.grad == 0) for p in network.parameters())


def test_weights_start_as_in_the_release(network: SemanticFPN) -> None:
    """Xavier uniform in the neck; in the head Kaiming normal by outputs, and 0.01 at the end."""
    for name, weight in network.named_parameters():
        outputs, inputs, *kernel = weight.shape if weight.ndim > 1 else (1, 1)
        cells = math.prod(kernel)
        if name.endswith("bias"):
            assert name.startswith("backbone.") or weight.abs().max() == 0, name
        elif name.startswith("neck."):
            deviation = math.sqrt(2 / ((inputs + outputs) * cells))
            assert weight.std().item() == pytest.approx(deviation, rel=0.04), name
            assert weight.abs().max() <= deviation * 3**0.5, name
        elif name.startswith("head.levels.") and weight.ndim > 1:
            deviation = math.sqrt(2 / (outputs * cells))
            assert weight.std().item() == pytest.approx(deviation, rel=0.04), name
            assert weight.abs().max() > deviation * 3, name
        elif name.startswith("head.classifier."):
            assert weight.std().item() == pytest.approx(0.01, rel=0.1), name


def test_every_parameter_is_in_a_part_and_is_trained(network: SemanticFPN) -> None:
    segments = torch.randint(CLASSES, (64, 64), dtype=torch.uint8)
    network([torch.rand(3, 64, 64)] * 2, targets(segments, segments))["cross_entropy"].backward()
    for name, parameter in network.named_parameters():
        assert name.split(".")[0] in ("backbone", "neck", "head")
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    parts = (network.backbone, network.neck, network.head)
    assert sum(count_parameters(part)[0] for part in parts) == pytest.approx(
        count_parameters(network)[0]
    )
