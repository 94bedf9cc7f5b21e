"""Backbones by name, ours and timm's, and what freezing leaves to train."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from pvt_bench.backbones import create, freeze
from pvt_bench.backbones.pvt import VARIANTS, PyramidVisionTransformer
from pvt_bench.errors import InputError

CONF = Path(__file__).parents[1] / "conf" / "model"


@pytest.mark.parametrize("name", VARIANTS)
def test_yaml_equals_the_registered_variant(name: str) -> None:
    content = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert content.pop("name") == name
    assert content.pop("weights") is None
    with torch.device("meta"):
        typed, registered = create(name, **content), create(name)
    assert str(typed) == str(registered)
    shapes = [
        {key: value.shape for key, value in network.state_dict().items()}
        for network in (typed, registered)
    ]
    assert shapes[0] == shapes[1]
    rates = [typed.stages[3].blocks[-1].drop_path.probability, content["drop_path"]]
    assert rates == [VARIANTS[name]["drop_path"]] * 2
    assert {"depths", "channels", "heads", "mlp_ratios", "sr_ratios", "patch_sizes"} < set(content)


def test_resnet50_yaml_builds() -> None:
    content = yaml.safe_load((CONF / "resnet50.yaml").read_text())
    with torch.device("meta"):
        network = create(**content, num_classes=7)
    assert network(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 7)


def test_ours_do_not_import_timm() -> None:
    code = (
        "import sys; from pvt_bench.backbones import create; create('pvt_tiny', features=True);"
        "assert not {'timm', 'torchvision', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_timm_builds_ours() -> None:
    import timm

    import pvt_bench.backbones.timm_models  # noqa: F401

    network = timm.create_model("pvt_small", num_classes=5)
    assert isinstance(network, PyramidVisionTransformer)
    assert network.head.out_features == 5
    assert set(VARIANTS) <= set(timm.list_models("pvt_*"))
    assert len(timm.create_model("pvt_tiny", features_only=True)(torch.randn(1, 3, 64, 64))) == 4


@pytest.mark.parametrize("name", ["resnet50", "convnext_atto", "efficientnet_b0", "pvt_v2_b0"])
def test_timm_pyramids_have_four_levels(name: str) -> None:
    network = create(name, features=True).eval()
    maps = network(torch.randn(1, 3, 64, 96))
    expected = [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(network.channels, network.strides, strict=True)
    ]
    assert network.strides == [4, 8, 16, 32]
    assert [tuple(each.shape) for each in maps] == expected
    assert len(network.mean) == len(network.std) == 3


def test_swin_maps_are_channels_first_at_any_size() -> None:
    network = create("swin_tiny_patch4_window7_224", features=True).eval()
    maps = network(torch.randn(1, 3, 96, 160))
    assert [tuple(each.shape[1:]) for each in maps] == [
        (channels, 96 // stride, 160 // stride)
        for channels, stride in zip([96, 192, 384, 768], network.strides, strict=True)
    ]


def test_a_timm_classifier_has_its_normalisation() -> None:
    network = create("vit_tiny_patch16_224", num_classes=3)
    assert network(torch.randn(1, 3, 224, 224)).shape == (1, 3)
    assert network.mean == network.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("pvt_smal", {}, ["model.name=pvt_smal", "pvt_small"]),
        ("resnet5O", {}, ["model.name=resnet5O", "resnet50"]),
        ("zzzzzzzzzzzz", {}, ["model.name=zzzzzzzzzzzz", "timm.list_models"]),
        ("pvt_small", {"sr_ratio": 1}, ["model.sr_ratio", "sr_ratios", "mlp_ratios"]),
        ("resnet50", {"drop_pathrate": 1}, ["model.drop_pathrate", "drop_path_rate"]),
        ("vit_tiny_patch16_224", {"features": True}, ["vit_tiny_patch16_224", "[4, 8, 16, 32]"]),
    ],
)
def test_wrong_words_are_explained(name: str, options: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        create(name, **options)
    assert all(word in str(caught.value) for word in words)


def trainable(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_freezing_resnet50_as_published() -> None:
    network = create("resnet50", features=True)
    before = trainable(network)
    freeze(network, stages=1, batch_norm=True)
    # conv1 9,408 + bn1 128 + layer1 215,808
    assert before - trainable(network) == 225_344
    network = copy.deepcopy(network)
    nn.Sequential(network).train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    sum(each.mean() for each in network(torch.randn(2, 3, 64, 64))).backward()
    assert all(torch.equal(a, b.running_mean) for a, b in zip(before, norms, strict=True))
    assert network.body.layer4.training
    assert not network.body.layer1.training
    assert network.body.conv1.weight.grad is None
    assert network.body.layer2[0].bn1.weight.grad is not None


def test_unfrozen_statistics_move() -> None:
    network = create("resnet50", features=True)
    freeze(network, stages=1)
    network.train()
    before = network.body.layer2[0].bn1.running_mean.clone(), network.body.bn1.running_mean.clone()
    network(torch.randn(2, 3, 64, 64))
    assert not torch.equal(before[0], network.body.layer2[0].bn1.running_mean)
    assert torch.equal(before[1], network.body.bn1.running_mean)


def test_freezing_pvt_freezes_its_first_stage() -> None:
    network = create("pvt_tiny", features=True)
    freeze(network, stages=1)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in network.named_parameters() if name.startswith("stages.0")}
    network.train()
    assert [stage.training for stage in network.stages] == [False, True, True, True]


def test_freezing_what_cannot_be_frozen() -> None:
    with pytest.raises(InputError, match="no stages to freeze"):
        freeze(nn.Linear(2, 2), stages=1)
    with pytest.raises(InputError, match="0 to 4"):
        freeze(create("pvt_tiny", features=True, depths=[1, 1, 1, 1]), stages=5)
