"""LeNet-5 against the counts and formulas of its paper."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from pvt_bench.backbones.lenet import TABLE, VARIANTS, LeNet5, Subsampling, TableConvolution, squash
from pvt_bench.backbones.weights import load_weights, save_weights
from pvt_bench.errors import InputError
from pvt_bench.measure.cost import measure_cost

CONF = Path(__file__).parents[2] / "conf" / "model"


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_trainable_parameters_of_each_layer() -> None:
    """Section II.B: 60,000 in all, which leaves out the fixed output units."""
    network = LeNet5(**VARIANTS["lenet5"])
    printed = {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164}
    assert {name: count(network.get_submodule(name)) for name in printed} == printed
    assert count(network) - count(network.head) == 60_000
    assert count(network.head) == 84 * 10 + 10


def test_operations_are_the_connections() -> None:
    """Section II.B counts connections with one bias a unit, which is no multiplication."""
    printed = {"C1": 122_304, "C3": 151_600, "C5": 48_120, "F6": 10_164}
    biases = 6 * 28**2 + 16 * 10**2 + 120 + 84
    with torch.device("meta"):
        cost = measure_cost(LeNet5(), (32, 32))
    assert cost.gflops * 1e9 == pytest.approx(sum(printed.values()) - biases + 84 * 10)
    assert not cost.uncounted


def test_maps_have_the_printed_sizes() -> None:
    network = LeNet5()
    sizes = {"c1": (6, 28), "s2": (6, 14), "c3": (16, 10), "s4": (16, 5), "c5": (120, 1)}
    maps = torch.randn(2, 1, 32, 32)
    for name, (channels, side) in sizes.items():
        maps = network.get_submodule(name)(maps)
        assert maps.shape == (2, channels, side, side)


def test_table_is_table_one() -> None:
    """The rows of the printed table: which maps of C3 read each map of S2."""
    rows = [
        "X...XXX..XXXX.XX",
        "XX...XXX..XXXX.X",
        "XXX...XXX..X.XXX",
        ".XXX..XXXX..X.XX",
        "..XXX..XXXX.XX.X",
        "...XXX..XXXX.XXX",
    ]
    columns = zip(*rows, strict=True)
    printed = [tuple(i for i, mark in enumerate(column) if mark == "X") for column in columns]
    assert list(TABLE) == printed


def test_c3_is_a_masked_convolution() -> None:
    layer = TableConvolution()
    dense = torch.zeros(16, 6, 5, 5)
    kernels = [kernel for part in layer.parts for kernel in part.weight.detach()]
    for target, (sources, kernel) in enumerate(zip(TABLE, kernels, strict=True)):
        dense[target, list(sources)] = kernel
    bias = torch.cat([part.bias.detach() for part in layer.parts])
    maps = torch.randn(2, 6, 14, 14)
    with torch.no_grad():
        torch.testing.assert_close(layer(maps), F.conv2d(maps, dense, bias))


def test_subsampling_by_hand() -> None:
    layer = Subsampling(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -1.0]))
        layer.bias.copy_(torch.tensor([0.25, 2.0]))
        maps = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 2, 2, 2)
        assert layer(maps).flatten().tolist() == [0.5 * 10 + 0.25, -10 + 2.0]


def test_squash_keeps_one() -> None:
    ends = squash(torch.tensor([-1.0, 0.0, 1.0, 100.0])).tolist()
    assert ends == pytest.approx([-1.0, 0.0, 1.0, 1.7159], abs=1e-4)
    assert squash(torch.tensor(0.3)).item() == pytest.approx(1.7159 * math.tanh(0.2))


def test_black_and_white_are_background_and_foreground() -> None:
    for value, level in ((0.0, -0.1), (1.0, 1.175)):
        levels = [(value - m) / s for m, s in zip(LeNet5.mean, LeNet5.std, strict=True)]
        assert levels == pytest.approx([level] * 3)


def test_weights_start_within_the_printed_bounds() -> None:
    network = LeNet5()
    inputs = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120, "head": 84}
    for name, fan_in in inputs.items():
        largest = max(p.abs().max().item() for p in network.get_submodule(name).parameters())
        assert 0.5 * 2.4 / fan_in < largest <= 2.4 / fan_in
    for part, fan_in in zip(network.c3.parts, (75, 100, 150), strict=True):
        assert 0.9 * 2.4 / fan_in < part.weight.abs().max().item() <= 2.4 / fan_in


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (224, 224), (96, 130), (1, 1)])
def test_any_size(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    assert LeNet5(num_classes=7)(images).shape == (2, 7)
    with torch.device("meta"):
        assert LeNet5()(torch.empty(2, 3, *size)).shape == (2, 10)


def test_logits_are_the_layers_in_a_row() -> None:
    """Section II.B: every layer up to F6 is squashed, the output is not."""
    network = LeNet5()
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        maps = grey
        for name in ("c1", "s2", "c3", "s4", "c5"):
            maps = 1.7159 * (network.get_submodule(name)(maps) * 2 / 3).tanh()
        units = 1.7159 * (network.f6(maps[:, :, 0, 0]) * 2 / 3).tanh()
        torch.testing.assert_close(network(grey.expand(-1, 3, -1, -1)), network.head(units))


def test_an_image_is_averaged_to_grey_and_resized() -> None:
    network, seen = LeNet5(), []
    network.c1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 32, 32)
    ramp = torch.arange(96.0).expand(1, 3, 64, 96)
    # Stripes that pixels 9 apart would sample into black and white.
    stripes = torch.tensor([-1.0, 1.0]).repeat(144).expand(1, 3, 288, 288)
    with torch.no_grad():
        for each in (images, ramp, stripes):
            network(each)
    torch.testing.assert_close(seen[0], images.mean(1, keepdim=True))
    inner = (torch.arange(32) * 3 + 1.0)[1:-1]
    torch.testing.assert_close(seen[1][..., 1:-1], inner.expand(1, 1, 32, 30))
    assert seen[2][..., 1:-1].abs().max() < 0.1


def test_every_parameter_has_a_finite_gradient() -> None:
    network = LeNet5()
    network(torch.randn(2, 3, 40, 40)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_it_learns_ten_digits_by_heart() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images[:10], dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    images = (images / 16 - LeNet5.mean[0]) / LeNet5.std[0]
    labels = torch.tensor(digits.target[:10])
    assert labels.tolist() == list(range(10))
    network = LeNet5()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    assert torch.equal(network(images).argmax(1), labels)


def test_weights_make_the_round_trip(tmp_path: Path) -> None:
    source, path = LeNet5(), tmp_path / "weights.safetensors"
    save_weights(source, path)
    network = LeNet5()
    assert load_weights(network, path, "lenet5").parameters == 60_850
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(images), source(images))
    assert load_weights(LeNet5(num_classes=3), path, "lenet5").missing == [
        "head.weight",
        "head.bias",
    ]


def test_yaml_has_no_options() -> None:
    assert yaml.safe_load((CONF / "lenet5.yaml").read_text()) == {"name": "lenet5", "weights": None}


@pytest.mark.parametrize("value", [0, 2.0, True, "10"])
def test_unusable_numbers_of_classes_are_named(value: object) -> None:
    with pytest.raises(InputError, match=r"model\.num_classes=.*expected"):
        LeNet5(num_classes=value)
