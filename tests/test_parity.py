"""Networks as built and loaded here, against independent implementations."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from pvt_bench.backbones import create
from pvt_bench.backbones.files import save_state

transformers = pytest.importorskip("transformers", minversion="5")

State = dict[str, Tensor]
Renaming = list[tuple[str, str]]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def perturb(network: nn.Module) -> nn.Module:
    """Move all that starts as a constant, so that no bias, scale or statistic hides a wrong one.

    Convolutions between batch norms are drawn so that the images' differences reach the logits.
    """
    with torch.no_grad():
        if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
        for parameter in network.parameters():
            if parameter.ndim == 1 or parameter.eq(0).all():
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return network.eval()


def load_into(theirs: nn.Module, state: State, renaming: Renaming) -> nn.Module:
    """Our tensors in their network, all of it: keys and values in parts, names by the rules."""
    mapped = {}
    for name, value in state.items():
        for pattern, replacement in renaming:
            name = re.sub(pattern, replacement, name)
        mapped.update(split(name, value))
    theirs.load_state_dict(mapped, strict=True)
    return theirs.eval()


def split(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor by its name, or those of a fused projection whose names are joined by a bar."""
    path, _, kind = name.rpartition(".")
    start, _, last = path.rpartition(".")
    parts = last.split("|")
    for part, each in zip(parts, value.chunk(len(parts)), strict=True):
        yield f"{start}.{part}.{kind}" if start else f"{part}.{kind}", each


PVT_V2: Renaming = [
    (r"^patch_embed\.", "pvt_v2.encoder.layers.0.patch_embedding."),
    (r"^stages\.(\d)\.downsample\.", r"pvt_v2.encoder.layers.\1.patch_embedding."),
    (r"^stages\.", "pvt_v2.encoder.layers."),
    (r"(patch_embedding|layers\.\d)\.norm\.", r"\1.layer_norm."),
    (r"\.norm(\d)\.", r".layer_norm_\1."),
    (r"\.attn\.", ".attention."),
    (r"\.q\.", ".query."),
    (r"\.kv\.", ".key|value."),
    (r"\.sr\.", ".spatial_reduction."),
    (r"attention\.norm\.", "attention.layer_norm."),
    (r"\.fc(\d)\.", r".dense\1."),
    (r"\.dwconv\.", ".dwconv.dwconv."),
    (r"^head\.", "classifier."),
]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("pvt_v2_b0", {}),
        ("pvt_v2_b2", {"depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 320, 512]}),
        (
            "pvt_v2_b2_li",
            {
                "depths": [3, 4, 6, 3],
                "hidden_sizes": [64, 128, 320, 512],
                "linear_attention": True,
            },
        ),
    ],
)
def test_pvt_v2(name: str, config: dict, tmp_path: Path) -> None:
    ours = perturb(create(name, num_classes=7))
    settings = transformers.PvtV2Config(**config, num_labels=7)
    theirs = load_into(
        transformers.PvtV2ForImageClassification(settings), ours.state_dict(), PVT_V2
    )
    for key, module in theirs.named_modules():
        # The released code leaves these two norms at torch's default; transformers does not.
        if key.endswith(("patch_embedding.layer_norm", "attention.layer_norm")):
            module.eps = 1e-5
    path = tmp_path / "weights.safetensors"
    save_state(ours.state_dict(), path)
    pyramid = create(name, features=True, weights=str(path)).eval()
    images = torch.randn(2, 3, 128, 160)
    with torch.no_grad():
        result = theirs(images, output_hidden_states=True)
        logits = ours(images)
        torch.testing.assert_close(logits, result.logits, **TOLERANCE)
        torch.testing.assert_close(pyramid(images), list(result.hidden_states), **TOLERANCE)
    assert (logits[0] - logits[1]).abs().max() > 0.01


def plain(prefix: str) -> Renaming:
    """timm's names of a plain transformer in those of transformers."""
    return [
        (r"^(cls_token|pos_embed|dist_token)$", rf"{prefix}.embeddings.\1"),
        (r"pos_embed$", "position_embeddings"),
        (r"dist_token$", "distillation_token"),
        (r"^patch_embed\.proj\.", f"{prefix}.embeddings.patch_embeddings.projection."),
        (r"^blocks\.", f"{prefix}.layers."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attn\.qkv\.", ".attention.q_proj|k_proj|v_proj."),
        (r"\.attn\.proj\.", ".attention.o_proj."),
        (r"^norm\.", f"{prefix}.layernorm."),
    ]


SIZES = {
    "tiny": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "base": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
}
HEAD = [(r"^head\.", "classifier.")]
HEADS = [(r"^head\.", "cls_classifier."), (r"^head_dist\.", "distillation_classifier.")]


@pytest.mark.parametrize(
    ("name", "size", "family", "kind", "heads"),
    [
        ("vit_base_patch16_224", "base", "vit", "ViTForImageClassification", HEAD),
        ("deit_tiny_patch16_224", "tiny", "vit", "ViTForImageClassification", HEAD),
        (
            "deit_tiny_distilled_patch16_224",
            "tiny",
            "deit",
            "DeiTForImageClassificationWithTeacher",
            HEADS,
        ),
    ],
)
def test_plain_transformers(name: str, size: str, family: str, kind: str, heads: Renaming) -> None:
    ours = perturb(create(name, num_classes=7))
    config = getattr(transformers, "DeiTConfig" if family == "deit" else "ViTConfig")
    # The released networks have 1e-6; 1e-12 is transformers' own default.
    settings = config(**SIZES[size], num_labels=7, layer_norm_eps=1e-6)
    theirs = getattr(transformers, kind)(settings)
    theirs = load_into(theirs, ours.state_dict(), [*plain(family), *heads])
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        logits = ours(images)
        torch.testing.assert_close(logits, theirs(images).logits, **TOLERANCE)
    assert (logits[0] - logits[1]).abs().max() > 0.01


# Where torchvision's networks have the maps at strides 4, 8, 16 and 32.
MAPS = {
    "resnet50": ["layer1", "layer2", "layer3", "layer4"],
    "densenet121": [*(f"features.denseblock{i}" for i in (1, 2, 3)), "relu"],
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet50", {}),
        ("densenet121", {}),
        ("inception_v3", {"init_weights": False}),
    ],
)
def test_torchvision(name: str, options: dict, tmp_path: Path) -> None:
    theirs = perturb(torchvision.models.get_model(name, weights=None, **options))
    path = tmp_path / f"{name}.pth"
    torch.save(theirs.state_dict(), path)
    ours = create(name, weights=str(path)).eval()
    images = torch.randn(2, 3, 128, 160)
    with torch.no_grad():
        logits = ours(images)
        torch.testing.assert_close(logits, theirs(images), **TOLERANCE)
        assert (logits[0] - logits[1]).abs().max() > 0.01
        if name in MAPS:
            pyramid = create(name, features=True, weights=str(path)).eval()
            maps = create_feature_extractor(theirs, MAPS[name])(images)
            torch.testing.assert_close(pyramid(images), list(maps.values()), **TOLERANCE)


def test_googlenet_and_its_input(tmp_path: Path) -> None:
    """torchvision's weights want its own transform of the input; a deviation of 0.5 replaces it."""
    theirs = perturb(torchvision.models.googlenet(init_weights=True, transform_input=True))
    path = tmp_path / "googlenet.pth"
    torch.save(theirs.state_dict(), path)
    ours = create("googlenet", weights=str(path)).eval()
    pyramid = create("googlenet", features=True, weights=str(path)).eval()
    images = torch.rand(2, 3, 128, 160)

    def normalise(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (mean, std))
        return (images - mean) / std

    imagenet = normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        logits = ours(normalise(ours.mean, ours.std))
        torch.testing.assert_close(logits, theirs(imagenet), **TOLERANCE)
        assert (logits[0] - logits[1]).abs().max() > 0.01
        last = create_feature_extractor(theirs, ["inception5b"])(imagenet)["inception5b"]
        maps = pyramid(normalise(pyramid.mean, pyramid.std))
        torch.testing.assert_close(maps[3], last, **TOLERANCE)
