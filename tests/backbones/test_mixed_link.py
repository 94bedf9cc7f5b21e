"""Mixed Link Networks against their published sizes and torchvision's DenseNet."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torchvision.models import DenseNet

from pvt_bench.backbones.freezing import freeze
from pvt_bench.backbones.mixed_link import VARIANTS, MixedLinkLayer, MixedLinkNetwork
from pvt_bench.backbones.weights import load_weights, save_weights
from pvt_bench.errors import InputError
from pvt_bench.measure.cost import measure_cost, measure_with_fvcore

CONF = Path(__file__).parents[2] / "conf" / "model"
SMALL = {"depths": [1, 2, 2, 1], "growth": 4, "num_classes": 5}


def on_meta(name: str, **options: object) -> MixedLinkNetwork:
    with torch.device("meta"):
        return MixedLinkNetwork(**VARIANTS[name], **options)


def randomised(**options: object) -> MixedLinkNetwork:
    """A small network in which no zero bias, unit scale or fresh statistic hides a wrong one."""
    torch.manual_seed(0)
    network = MixedLinkNetwork(**{**SMALL, **options}).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


# Parameters as printed in the README of the released code.
@pytest.mark.parametrize(
    ("name", "params"),
    [("mixed_link_105", 11.16), ("mixed_link_121", 21.86), ("mixed_link_141", 41.07)],
)
def test_published_parameters(name: str, params: float) -> None:
    cost = measure_cost(on_meta(name), (224, 224))
    assert round(cost.params_m, 2) == params
    assert not cost.uncounted


# The ImageNet networks of the paper and the released code: a stem of 2k channels, blocks at 56, 28,
# 14 and 7 pixels that append k = k1 = k2 channels a layer, and transitions that halve. The number
# in the name is that of the layers with weights in a row.
@pytest.mark.parametrize(
    ("name", "stem", "depths", "widths"),
    [
        ("mixed_link_105", 64, (6, 12, 20, 12), [256, 512, 896, 832]),
        ("mixed_link_121", 80, (6, 12, 24, 16), [320, 640, 1280, 1280]),
        ("mixed_link_141", 96, (6, 12, 30, 20), [384, 768, 1824, 1872]),
    ],
)
def test_stages(name: str, stem: int, depths: tuple[int, ...], widths: list[int]) -> None:
    network = on_meta(name, features=True)
    entries = [stage[0][0 if i == 0 else 2].out_channels for i, stage in enumerate(network.stages)]
    assert entries == [stem, *(width // 2 for width in widths[:-1])]
    assert tuple(len(stage) - 1 for stage in network.stages) == depths
    stem_transitions_head = 1 + 3 + 1
    assert int(name[-3:]) == 2 * sum(depths) + stem_transitions_head
    maps = network(torch.empty(2, 3, 224, 224, device="meta"))
    sides = [56, 28, 14, 7]
    expected = [(2, width, side, side) for width, side in zip(widths, sides, strict=True)]
    assert [tuple(each.shape) for each in maps] == expected
    assert network.channels == widths
    assert network.strides == [4, 8, 16, 32]


def test_two_counters_agree() -> None:
    theirs, _ = measure_with_fvcore(MixedLinkNetwork(**VARIANTS["mixed_link_105"]), (224, 224))
    cost = measure_cost(on_meta("mixed_link_105"), (224, 224))
    assert cost.gflops == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("name", VARIANTS)
def test_yaml_equals_the_variant(name: str) -> None:
    content = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert content.pop("name") == name
    assert content.pop("weights") is None
    with torch.device("meta"):
        typed = MixedLinkNetwork(**content)
    assert str(typed) == str(on_meta(name))


def test_a_layer_adds_and_appends() -> None:
    layer = MixedLinkLayer(10, 4).eval()
    maps = torch.randn(2, 10, 5, 6)
    before = maps.clone()
    with torch.no_grad():
        mixed = layer(maps)
        torch.testing.assert_close(mixed[:, :6], maps[:, :6])
        torch.testing.assert_close(mixed[:, 6:10], maps[:, 6:] + layer.inner(maps))
        torch.testing.assert_close(mixed[:, 10:], layer.outer(maps))
    assert mixed.shape == (2, 14, 5, 6)
    assert torch.equal(maps, before)


def test_without_inner_links_it_is_a_densenet() -> None:
    """Section 4 names DenseNet as the case k1 = 0; here the inner links add zero instead."""
    ours = randomised()
    theirs = DenseNet(
        growth_rate=4, block_config=(1, 2, 2, 1), num_init_features=8, bn_size=4, num_classes=5
    ).eval()
    body = theirs.features
    pairs = [(ours.norm, body.norm5), (ours.head, theirs.classifier)]
    pairs += [(ours.stages[0][0][0], body.conv0), (ours.stages[0][0][1], body.norm0)]
    for number, stage in enumerate(ours.stages, start=1):
        if number > 1:
            transition = getattr(body, f"transition{number - 1}")
            pairs += [(stage[0][0], transition.norm), (stage[0][2], transition.conv)]
        dense = getattr(body, f"denseblock{number}").values()
        for layer, other in zip(list(stage)[1:], dense, strict=True):
            nn.init.zeros_(layer.inner[-1].weight)
            parts = (other.norm1, other.conv1, other.norm2, other.conv2)
            pairs += [(layer.outer[i], part) for i, part in zip((0, 2, 3, 5), parts, strict=True)]
    for own, other in pairs:
        other.load_state_dict(own.state_dict(), strict=True)
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected, logits = theirs(images), ours(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(800, 1344), (320, 256), (97, 130), (29, 29)])
def test_other_sizes(size: tuple[int, int]) -> None:
    network = on_meta("mixed_link_105", features=True)
    maps = network(torch.empty(2, 3, *size, device="meta"))
    quarter = [-(-side // 4) for side in size]
    expected = [tuple(side // 2**level for side in quarter) for level in range(4)]
    assert [tuple(each.shape[2:]) for each in maps] == expected
    assert on_meta("mixed_link_105")(torch.empty(2, 3, *size, device="meta")).shape == (2, 1000)


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"28 x 64 .* at least 29 pixels"):
        randomised()(torch.randn(1, 3, 28, 64))


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_parameter_has_a_finite_gradient(features: bool, precision: torch.dtype) -> None:
    network = randomised(features=features).train()
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        outputs = network(torch.randn(2, 3, 64, 96))
    outputs = outputs if features else [outputs]
    sum(each.float().square().mean() for each in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_weights_make_the_round_trip(tmp_path: Path) -> None:
    source, path = randomised(), tmp_path / "weights.safetensors"
    save_weights(source, path)
    images = torch.randn(1, 3, 64, 64)
    network = MixedLinkNetwork(**SMALL).eval()
    assert load_weights(network, path, "mixed_link_105").loaded == list(source.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network(images), source(images))


def test_a_pyramid_has_the_classifiers_stages() -> None:
    source, pyramid = randomised(), MixedLinkNetwork(**SMALL, features=True).eval()
    stages = {k: v for k, v in source.state_dict().items() if k.startswith("stages.")}
    pyramid.load_state_dict(stages, strict=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        last = pyramid(images)[3]
        expected = source.head(source.norm(last).relu().mean((2, 3)))
        torch.testing.assert_close(source(images), expected)


def test_freezing_its_first_stage() -> None:
    network = randomised(features=True)
    freeze(network, stages=1, batch_norm=True)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in network.named_parameters() if name.startswith("stages.0")}
    assert "stages.0.0.0.weight" in frozen
    network.train()
    before = [module.clone() for module in network.buffers()]
    network(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("depths", [6, 12, 20]),
        ("depths", [6, 12, 20, 0]),
        ("growth", 0),
        ("growth", 32.5),
        ("growth", True),
        ("num_classes", -1),
    ],
)
def test_unusable_values_are_named(option: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"model\.{option}=.*expected"):
        MixedLinkNetwork(**{**VARIANTS["mixed_link_105"], option: value})
