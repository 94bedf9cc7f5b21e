"""Four maps from plain ViTs, the real sizes of all families' maps, and freezing by stage."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pvt_bench.backbones import create, freeze
from pvt_bench.errors import InputError
from pvt_bench.networks.retinanet import RetinaNet

# The sides of the maps by hand, from kernels, strides and paddings. Halvings of a side n: with
# padding ceil(n / 2), 2 x 2 without padding floor(n / 2), 3 x 3 without padding (n - 3) // 2 + 1.
# GoogLeNet pools 3 x 3 without padding but lets the last window reach over the edge: floor(n / 2).
SIDES = {
    "pvt_tiny": {224: (56, 28, 14, 7), 225: (56, 28, 14, 7), 321: (80, 40, 20, 10)},
    "mixed_link_105": {225: (57, 28, 14, 7), 321: (81, 40, 20, 10)},
    "resnet18": {225: (57, 29, 15, 8), 321: (81, 41, 21, 11)},
    "dpn68": {225: (57, 29, 15, 8), 321: (81, 41, 21, 11)},
    "mixnet_s": {225: (57, 29, 15, 8), 321: (81, 41, 21, 11)},
    "pvt_v2_b0": {225: (57, 29, 15, 8), 321: (81, 41, 21, 11)},
    "densenet121": {225: (57, 28, 14, 7), 321: (81, 40, 20, 10)},
    "googlenet": {225: (56, 28, 14, 7), 239: (60, 30, 15, 8), 321: (80, 40, 20, 10)},
    "inception_v3": {75: (15, 7, 3, 1), 224: (52, 25, 12, 5), 299: (71, 35, 17, 8)},
    "inception_v4": {75: (17, 7, 3, 1), 224: (54, 25, 12, 5), 299: (73, 35, 17, 8)},
}
# Tiny, and of the same classes as the real ones.
TINY = {"embed_dim": 32, "depth": 8, "num_heads": 2, "img_size": 64}
VIT = {"name": "vit_tiny_patch16_224", **TINY}
DISTILLED = {"name": "deit_tiny_distilled_patch16_224", **TINY}


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", SIDES)
def test_the_sizes_of_the_maps(name: str) -> None:
    pyramid: Any = create(name, features=True).eval()
    least, *_, largest = SIDES[name]
    for height, width in ((least, largest), (largest, least)):
        expected = list(zip(SIDES[name][height], SIDES[name][width], strict=True))
        with torch.no_grad():
            maps = pyramid(torch.randn(1, 3, height, width))
        assert [tuple(each.shape[2:]) for each in maps] == expected
    with torch.device("meta"):
        shapes: Any = create(name, features=True).eval()
    for side, expected in SIDES[name].items():
        maps = shapes(torch.empty(1, 3, side, side, device="meta"))
        assert [tuple(each.shape[2:]) for each in maps] == [(each, each) for each in expected]


@pytest.mark.parametrize("options", [VIT, DISTILLED], ids=["vit", "distilled"])
@pytest.mark.parametrize("patch", [4, 16, 32])
@pytest.mark.parametrize("way", ["simple", "interpolated"])
def test_plain_vits_have_four_maps(options: dict, patch: int, way: str) -> None:
    pyramid: Any = create(**options, patch_size=patch, pyramid=way, features=True)
    maps = pyramid(torch.randn(2, 3, 96, 64))
    assert [tuple(each.shape[2:]) for each in maps] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    assert [each.shape[1] for each in maps] == pyramid.channels
    sum(each.square().mean() for each in maps).backward()
    gradients = {name: p.grad for name, p in pyramid.named_parameters()}
    assert all(each is not None and each.isfinite().all() for each in gradients.values())


def test_the_simple_pyramid_has_the_layers_of_vitdet() -> None:
    pyramid: Any = create(**VIT, features=True)
    kinds = [[type(layer).__name__ for layer in level] for level in pyramid.levels]
    up = "ConvTranspose2d"
    assert kinds == [[up, "LayerNorm2d", "GELU", up], [up], [], ["MaxPool2d"]]
    assert pyramid.channels == [8, 16, 32, 32]
    # 2 x 2 kernels with biases: 32 to 16, twice; 16 to 8; a scale and a shift for 16 channels.
    assert parameters(pyramid.levels) == 2 * (32 * 16 * 4 + 16) + (16 * 8 * 4 + 8) + 2 * 16


def test_simple_maps_come_from_the_last_tokens() -> None:
    pyramid: Any = create(**VIT, features=True).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = pyramid(images)
        tokens = pyramid.body.forward_features(images)[:, 1:]  # the final norm is gone
    last = tokens.transpose(1, 2).unflatten(2, (4, 6))
    assert torch.equal(maps[2], last)
    assert torch.equal(maps[3], F.max_pool2d(last, 2))
    layer = pyramid.levels[1][0]
    top_left = last[0, :, 0, 0] @ layer.weight[:, :, 0, 1] + layer.bias
    assert torch.allclose(maps[1][0, :, 0, 1], top_left, atol=1e-6)


def test_interpolated_maps_come_from_layers_2_4_6_and_8() -> None:
    pyramid: Any = create(**VIT, pyramid="interpolated", features=True).eval()
    images = torch.randn(1, 3, 64, 96)
    outputs: list[torch.Tensor] = []
    for block in pyramid.body.blocks:
        block.register_forward_hook(lambda _, __, output: outputs.append(output[:, 1:]))
    with torch.no_grad():
        maps = pyramid(images)
    for i, (layer, size) in enumerate({2: (16, 24), 4: (8, 12), 6: (4, 6), 8: (2, 3)}.items()):
        tokens = outputs[layer - 1].transpose(1, 2).unflatten(2, (4, 6))
        expected = F.interpolate(tokens, size=size, mode="bilinear", align_corners=False)
        assert torch.allclose(maps[i], expected, atol=1e-6)
    # Nothing but the transformer without its norm and head.
    assert parameters(pyramid) == parameters(create(**VIT, num_classes=1)) - 2 * 32 - 33


def test_positions_follow_the_size_of_the_image() -> None:
    pyramid: Any = create(**VIT, features=True).eval()
    with torch.no_grad():
        pyramid.body.pos_embed.zero_()
        pyramid.body.pos_embed[:, 1:5] += 1.0  # the upper row of a grid of 4 x 4
        outputs = pyramid.body.forward_intermediates(torch.zeros(1, 3, 128, 128), [0])[1][0]
    assert outputs.shape == (1, 32, 8, 8)
    assert not torch.allclose(outputs[..., 0, :], outputs[..., -1, :])


@pytest.mark.parametrize(
    ("patch", "published"), [(32, 60.8), (4, 60.9)], ids=["ViT-Small/32", "ViT-Small/4"]
)
def test_retinanet_on_interpolated_maps_has_the_published_parameters(
    patch: int, published: float
) -> None:
    # PVT, arXiv 2102.12122, table 8
    shape = {"embed_dim": 768, "depth": 8, "num_heads": 8, "mlp_ratio": 3, "qkv_bias": False}
    with torch.device("meta"):
        backbone = create(
            "vit_small",
            base="vit_small_patch16_224",
            features=True,
            patch_size=patch,
            pyramid="interpolated",
            **shape,
        )
        network = RetinaNet(backbone, num_classes=80)
    assert parameters(network) / 1e6 == pytest.approx(published, abs=0.05)


def test_a_detector_takes_maps_that_are_smaller_than_their_strides_say() -> None:
    with torch.device("meta"):
        network = RetinaNet(create("inception_v3", features=True), num_classes=3)
        outputs = network.eval().outputs(torch.empty(1, 3, 224, 224))
    cells = 25**2 + 12**2 + 5**2 + 3**2 + 2**2
    assert outputs["cls_logits"].shape == (1, 9 * cells, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({**VIT, "pyramid": "simpl"}, ["model.pyramid=simpl", "simple"]),
        ({**VIT, "depth": 3}, ["model.depth=3", "model.depth=8"]),
        ({**VIT, "patch_size": 8, "pyramid": "fpn"}, ["model.pyramid=fpn", "interpolated"]),
        ({**VIT, "patch_size": 64}, ["patches of 64 pixels", "vit_base_patch16"]),
        ({"name": "tnt_s_patch16_224"}, ["tnt_s_patch16_224 is a classifier", "[4, 8, 16, 32]"]),
        ({"name": "t2t_vit_t_14"}, ["t2t_vit_t_14 is a classifier", "pvt_small"]),
        ({"name": "lenet5"}, ["lenet5 is a classifier", "pvt_small"]),
        ({"name": "beit_base_patch16_224"}, ["is a classifier", "[16, 16, 16]"]),
    ],
)
def test_what_has_no_pyramid_says_so(options: dict, words: list[str]) -> None:
    with torch.device("meta"), pytest.raises(InputError) as caught:
        create(**options, features=True)
    assert all(word in str(caught.value) for word in words)


def test_a_classifier_refuses_a_wrong_pyramid_too() -> None:
    with pytest.raises(InputError, match=r"model\.pyramid=simpl"):
        create(**VIT, pyramid="simpl")


@pytest.mark.parametrize("way", ["simple", "interpolated"])
def test_freezing_a_plain_vit(way: str) -> None:
    pyramid: Any = create(**VIT, pyramid=way, features=True, drop_path=0.2)
    freeze(pyramid, stages=2)
    pyramid.train()
    frozen = {name for name, p in pyramid.named_parameters() if not p.requires_grad}
    embeddings = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert {f"body.{name}" for name in embeddings} < frozen
    blocks = {name.split(".")[2] for name in frozen if ".blocks." in name}
    assert blocks == {"0", "1", "2", "3"}
    assert len(frozen) == len(embeddings) + sum(".blocks." in name for name in frozen)
    assert [block.training for block in pyramid.body.blocks] == [False] * 4 + [True] * 4
    freeze(pyramid, stages=4)
    assert not any(p.requires_grad for p in pyramid.parameters())


@pytest.mark.parametrize(
    "name", ["densenet121", "dpn68", "mixnet_s", "googlenet", "inception_v4", "pvt_v2_b0"]
)
def test_freezing_leaves_the_deeper_stages(name: str) -> None:
    with torch.device("meta"):
        pyramid: Any = create(name, features=True)
    maps = pyramid(torch.empty(2, 3, 128, 128, device="meta"))
    # What the second map does not need belongs to the later stages, and nothing else.
    (maps[0].mean() + maps[1].mean()).backward()
    early = {name for name, p in pyramid.named_parameters() if p.grad is not None}
    freeze(pyramid, stages=2)
    frozen = {name for name, p in pyramid.named_parameters() if not p.requires_grad}
    assert frozen == early
