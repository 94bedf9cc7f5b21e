"""Backbones by name, ours and timm's, and what freezing leaves to train."""

import copy
import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from pvt_bench.backbones import create, freeze
from pvt_bench.backbones.pvt import VARIANTS, PyramidVisionTransformer
from pvt_bench.errors import InputError

CONF = Path(__file__).parents[2] / "conf" / "model"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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


def test_ours_do_not_import_timm() -> None:
    code = (
        "import sys; from pvt_bench.backbones import create; create('pvt_tiny', features=True);"
        "create('lenet5');"
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


def test_swin_maps_are_channels_first_at_any_size() -> None:
    network = create("swin_tiny_patch4_window7_224", features=True).eval()
    maps = network(torch.randn(1, 3, 96, 160))
    assert [tuple(each.shape[1:]) for each in maps] == [
        (channels, 96 // stride, 160 // stride)
        for channels, stride in zip([96, 192, 384, 768], network.strides, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("vit_tiny_patch16_224", 0.5),
        ("deit_tiny_patch16_224", 0.485),
        ("resnet18", 0.485),
        ("inception_v3", 0.5),
        ("googlenet", 0.5),
    ],
)
@pytest.mark.parametrize("features", [False, True])
def test_the_normalisation_is_that_of_the_weights(name: str, mean: float, features: bool) -> None:
    with torch.device("meta"):
        network = create(name, features=features)
    deviation = 0.5 if mean == 0.5 else 0.229
    assert (network.mean[0], network.std[0]) == (mean, deviation)


def test_googlenets_normalisation_is_torchvisions_transform_of_the_input() -> None:
    import torchvision

    theirs = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=True)
    ours = create("googlenet")
    images = torch.rand(2, 3, 8, 8)
    imagenet = [torch.tensor(each)[:, None, None] for each in IMAGENET]
    expected = theirs._transform_input((images - imagenet[0]) / imagenet[1])
    half = [torch.tensor(each)[:, None, None] for each in (ours.mean, ours.std)]
    assert torch.allclose((images - half[0]) / half[1], expected, atol=1e-6)


def test_drop_path_has_one_name() -> None:
    def rates(name: str, **options: float) -> list[float]:
        with torch.device("meta"):
            network = create(name, drop_path=0.2, **options)
        drops = [each for each in network.modules() if type(each).__name__ == "DropPath"]
        return [getattr(each, "drop_prob", getattr(each, "probability", 0)) for each in drops]

    for name in ("resnet18", "pvt_v2_b0", "vit_tiny_patch16_224", "mixnet_s", "pvt_tiny"):
        assert max(rates(name)) > 0.14, name
    assert rates("pvt_v2_b0")[-1] == pytest.approx(0.2)


def test_a_base_is_changed_by_options() -> None:
    # ViT-Small/16 of PVT, arXiv 2102.12122, table 2
    shape = {"embed_dim": 768, "depth": 8, "num_heads": 8, "mlp_ratio": 3, "qkv_bias": False}
    with torch.device("meta"):
        network = create("vit_small_patch16", base="vit_small_patch16_224", **shape)
    # Embedding, positions, class token; 8 layers; norm; head
    layer = 768 * 3 * 768 + 768 * 768 + 768 + 2 * 768 * 2304 + 2304 + 768 + 4 * 768
    expected = 768 * 768 + 768 + 197 * 768 + 768 + 8 * layer + 2 * 768 + 769 * 1000
    assert sum(p.numel() for p in network.parameters()) == expected == 48_754_408


def test_global_context_blocks_as_published() -> None:
    with torch.device("meta"):
        plain, network = create("resnet50"), create("resnet50_gc")
    # Per block of C channels: the mask C + 1; C -> C / 4 -> C with biases, a norm of C / 4.
    added = [c + 1 + 2 * c * c // 4 + c // 4 + c + 2 * c // 4 for c in (512, 1024, 2048)]
    count = sum(p.numel() for p in network.parameters()) - sum(
        p.numel() for p in plain.parameters()
    )
    assert count == 4 * added[0] + 6 * added[1] + 3 * added[2] == 10_000_909
    assert [type(block.se).__name__ for block in network.layer1] == ["NoneType"] * 3


def test_global_context_starts_as_the_identity() -> None:
    network = create("resnet50_gc", features=True).eval()
    plain = create("resnet50", features=True).eval()
    own = network.state_dict()
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        pairs = list(zip(network(images), plain(images), strict=True))
        assert all(torch.allclose(here, there) for here, there in pairs)
        block = network.body.layer4[2].se
        block.mlp_add.fc2.weight.normal_()
        maps = torch.randn(2, 2048, 3, 4)
        # Softmax over the pixels weighs their mean; one vector is added at every pixel.
        added = block(maps) - maps
        assert torch.allclose(added, added[:, :, :1, :1].expand_as(added), atol=1e-5)
        weights = block.conv_attn(maps).flatten(1).softmax(1)
        context = (maps.flatten(2) @ weights[:, :, None])[..., None]
        assert torch.allclose(block.mlp_add(context), added[:, :, :1, :1], atol=1e-4)


def test_the_wide_pvt_has_the_published_parameters() -> None:
    # PVT, arXiv 2102.12122, table 9
    with torch.device("meta"):
        network = create("pvt_small_wide")
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(46.8, abs=0.05)
    widths = [round(1.4 * width) for width in (64, 128, 320, 512)]
    assert all(abs(own - width) < 6 for own, width in zip(network.channels, widths, strict=True))


def test_a_changed_ratio_reaches_pvt_v2() -> None:
    with torch.device("meta"):
        network = create("pvt_v2_b0", sr_ratios=[4, 2, 1, 1])
        linear = create("pvt_v2_b0", linear=True)
    kernels = [
        stage.blocks[0].attn.sr and stage.blocks[0].attn.sr.stride for stage in network.stages
    ]
    assert kernels == [(4, 4), (2, 2), None, None]
    assert [stage.blocks[0].attn.pool.output_size for stage in linear.stages] == [7] * 4


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("pvt_smal", {}, ["model.name=pvt_smal", "pvt_small"]),
        ("resnet5O", {}, ["model.name=resnet5O", "resnet50"]),
        ("zzzzzzzzzzzz", {}, ["model.name=zzzzzzzzzzzz", "timm.list_models"]),
        ("???", {}, ["Which network", "model.name=convnext_tiny"]),
        ("vit", {"base": "vit_base_patch16_22"}, ["model.base=", "vit_base_patch16_224"]),
        ("pvt_small", {"sr_ratio": 1}, ["model.sr_ratio", "sr_ratios", "mlp_ratios"]),
        ("lenet5", {"depth": 1}, ["model.depth", "lenet5", "none"]),
        ("googlenet", {"drop_path": 0.1}, ["model.drop_path", "googlenet", "dropout"]),
        ("googlenet", {"aux_logits": True}, ["model.aux_logits", "dropout"]),
        ("resnet50", {"drop_pathrate": 1}, ["model.drop_pathrate", "drop_path "]),
        ("resnet50", {"drop_path_rate": 0.1}, ["model.drop_path_rate", "drop_path,"]),
        ("resnet50", {"checkpoint_path": "x"}, ["model.checkpoint_path", "stem_width"]),
        ("resnet50", {"features_only": True}, ["model.features_only", "stem_width"]),
        ("resnet50", {"drop_path": 1.0}, ["model.drop_path=1.0", "model.drop_path=0.1"]),
        ("resnet50", {"drop_path": "much"}, ["model.drop_path='much'", "model.drop_path=0.1"]),
        ("densenet121", {"drop_path": 0.1}, ["model.drop_path", "densenet121", "drop_rate"]),
        ("deit_tiny_distilled_patch16_224", {"depht": 2}, ["model.depht", "mean depth"]),
        ("vit_tiny_patch16_224", {"pyramyd": "simple"}, ["model.pyramyd", "mean pyramid"]),
        ("vit_tiny_patch16_224", {"num_heads": 7}, ["model.num_heads=7", "divisible"]),
        ("pvt_v2_b0", {"sr_ratios": [8, 4, 2]}, ["model.sr_ratios=[8, 4, 2]", "[8,4,2,1]"]),
        ("pvt_v2_b0", {"sr_ratios": [8, 4, 2, 0]}, ["model.sr_ratios", "[8,4,2,1]"]),
        ("pvt_v2_b0", {"num_heads": [1, 2, 5, 7]}, ["model.num_heads=[1, 2, 5, 7]", "256"]),
    ],
)
@pytest.mark.parametrize("features", [False, True])
def test_wrong_words_are_explained(
    name: str, options: dict, words: list[str], features: bool
) -> None:
    if features and name == "lenet5":
        words = ["lenet5", "no pyramid"]
    with torch.device("meta"), pytest.raises(InputError) as caught:
        create(name, features=features, **options)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("name", "features", "device", "size", "words"),
    [
        # The least sides that torchvision gives for its networks of these papers.
        ("inception_v3", True, "cpu", (60, 90), ["inception_v3", "60 x 90", "75 x 75"]),
        ("densenet121", False, "meta", (20, 20), ["20 x 20", "29 x 29"]),
        ("googlenet", False, "cpu", (10, 10), ["10 x 10", "15 x 15"]),
        ("googlenet", True, "meta", (10, 10), ["10 x 10"]),
        # Its first stage reduces a map of a quarter of the side by 8 x 8.
        ("pvt_v2_b0", False, "cpu", (28, 28), ["28 x 28", "29 x 29"]),
        ("pvt_v2_b0", True, "meta", (28, 28), ["28 x 28", "29 x 29"]),
        ("vit_tiny_patch16_224", False, "cpu", (100, 96), ["100 x 96", "112 x 112"]),
        ("vit_tiny_patch16_224", True, "cpu", (80, 96), ["80 x 96", "multiples of 32"]),
        ("tnt_s_patch16_224", False, "meta", (320, 256), ["320 x 256", "224 x 224"]),
    ],
)
def test_images_of_a_wrong_size_are_refused(
    name: str, features: bool, device: str, size: tuple[int, int], words: list[str]
) -> None:
    with torch.device(device):
        network = create(name, features=features).eval()
        with torch.no_grad(), pytest.raises(InputError) as caught:
            network(torch.zeros(2, 3, *size))
    assert all(word in str(caught.value) for word in words)


def test_other_failures_of_a_forward_pass_are_not_blamed_on_the_size() -> None:
    network = create("resnet18")
    images = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="Double"):
        network.eval()(images)


def test_a_copy_of_a_network_is_on_its_own() -> None:
    network = create("resnet18", features=True).eval()
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        images = torch.randn(1, 3, 64, 64)
        assert network(images)[3].abs().max() == 0
        assert copied(images)[3].abs().max() > 0


def test_a_network_leaves_memory_with_its_last_reference() -> None:
    network = create("resnet18", features=True)
    gone = weakref.ref(network.body)
    gc.disable()
    try:
        del network
        assert gone() is None
    finally:
        gc.enable()


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
    freeze(nn.Linear(2, 2))  # nothing is asked for
    with pytest.raises(InputError, match="0 to 4"):
        freeze(create("pvt_tiny", features=True, depths=[1, 1, 1, 1]), stages=5)
