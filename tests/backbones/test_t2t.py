"""T2T-ViT against its published sizes, torch's encoder layer, and itself written out."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.backbones.t2t import VARIANTS, Block, TokensToTokenViT, sinusoid
from pvt_bench.backbones.weights import load_weights, save_weights
from pvt_bench.errors import InputError
from pvt_bench.measure.cost import measure_cost, measure_with_fvcore

CONF = Path(__file__).parents[2] / "conf" / "model"
SHALLOW = {"depth": 2, "channels": 48, "heads": 3, "token_channels": 16, "num_classes": 5}


def on_meta(name: str) -> TokensToTokenViT:
    with torch.device("meta"):
        return TokensToTokenViT(**VARIANTS[name])


def randomised(**options: int) -> TokensToTokenViT:
    """A small network in which no zero bias or unit scale hides a wrong one."""
    torch.manual_seed(0)
    network = TokensToTokenViT(**{**SHALLOW, **options}).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(one + 0.1 * torch.randn(parameter.shape))
    return network


# params: trainable, as the port in timm's pull request 2426 counts them. released: the table in
# the README of the released code, which counts the fixed position embedding too. GFLOPs: there and
# in Table 2 of arXiv 2102.12122.
@pytest.mark.parametrize(
    ("name", "params", "released", "gflops"),
    [
        ("t2t_vit_t_14", 21.4654, 21.5, 6.1),
        ("t2t_vit_t_19", 39.0847, 39.2, 9.8),
        ("t2t_vit_t_24", 64.0006, 64.1, 15.0),
    ],
)
def test_published_cost(name: str, params: float, released: float, gflops: float) -> None:
    network = on_meta(name)
    cost = measure_cost(network, (224, 224))
    assert round(cost.params_m, 4) == params
    assert round(sum(each.numel() for each in network.state_dict().values()) / 1e6, 1) == released
    assert cost.gflops == pytest.approx(gflops, rel=0.01)
    assert not cost.uncounted


def test_two_counters_agree() -> None:
    theirs, _ = measure_with_fvcore(TokensToTokenViT(**VARIANTS["t2t_vit_t_14"]), (224, 224))
    cost = measure_cost(on_meta("t2t_vit_t_14"), (224, 224))
    assert cost.gflops == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("name", VARIANTS)
def test_yaml_equals_the_variant(name: str) -> None:
    content = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert content.pop("name") == name
    assert content.pop("weights") is None
    assert {"mlp_ratio", "token_channels", "drop_path"} < set(content)
    with torch.device("meta"):
        typed = TokensToTokenViT(**content)
    shapes, expected = (
        {key: value.shape for key, value in network.state_dict().items()}
        for network in (typed, on_meta(name))
    )
    assert shapes == expected
    assert [block.attn.heads for block in typed.blocks] == [VARIANTS[name]["heads"]] * len(
        typed.blocks
    )


def test_tensors_are_named_and_shaped_as_released() -> None:
    state = on_meta("t2t_vit_t_14").state_dict()
    expected = {
        "cls_token": [1, 1, 384],
        "pos_embed": [1, 197, 384],
        "norm.weight": [384],
        "norm.bias": [384],
        "head.weight": [1000, 384],
        "head.bias": [1000],
        "tokens_to_token.project.weight": [384, 576],
        "tokens_to_token.project.bias": [384],
    }
    layers = {f"blocks.{i}.": (384, 384, 1152) for i in range(14)}
    layers["tokens_to_token.attention1."] = (147, 64, 64)
    layers["tokens_to_token.attention2."] = (576, 64, 64)
    for prefix, (inputs, width, hidden) in layers.items():
        expected |= {
            f"{prefix}norm1.weight": [inputs],
            f"{prefix}norm1.bias": [inputs],
            f"{prefix}attn.qkv.weight": [3 * width, inputs],
            f"{prefix}attn.proj.weight": [width, width],
            f"{prefix}attn.proj.bias": [width],
            f"{prefix}norm2.weight": [width],
            f"{prefix}norm2.bias": [width],
            f"{prefix}mlp.fc1.weight": [hidden, width],
            f"{prefix}mlp.fc1.bias": [hidden],
            f"{prefix}mlp.fc2.weight": [width, hidden],
            f"{prefix}mlp.fc2.bias": [width],
        }
    assert {name: list(value.shape) for name, value in state.items()} == expected


def test_sinusoid_is_the_formula() -> None:
    table = sinusoid(197, 384)
    assert table.shape == (1, 197, 384)
    for position in (0, 1, 100, 196):
        for channel in (0, 1, 2, 7, 200, 383):
            angle = position / 10000 ** (2 * (channel // 2) / 384)
            value = math.cos(angle) if channel % 2 else math.sin(angle)
            assert table[0, position, channel].item() == pytest.approx(value, abs=1e-6)
    assert not any(parameter.shape == table.shape for parameter in randomised().parameters())


def test_positions_of_another_grid_keep_their_place() -> None:
    network = randomised()
    torch.testing.assert_close(network.positions((14, 14)), network.pos_embed)
    with torch.no_grad():
        rows = torch.arange(14.0)[:, None].expand(14, 14).flatten()
        network.pos_embed[:, 1:] = rows[None, :, None]
        resized = network.positions((28, 7))
    assert resized.shape == (1, 1 + 28 * 7, 48)
    torch.testing.assert_close(resized[:, 0], network.pos_embed[:, 0])
    # Half-pixel centres: row i of 28 lies at (i + 0.5) / 2 - 0.5 of 14. torch's cubic bends a ramp
    # by a few hundredths.
    expected = ((torch.arange(28) + 0.5) / 2 - 0.5)[:, None, None].expand(28, 7, 48)
    torch.testing.assert_close(resized[0, 1:].reshape(28, 7, 48), expected, rtol=0, atol=0.2)


def patches(maps: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Overlapping patches (B, N, C * kernel^2), cut out one by one."""
    maps = F.pad(maps, [padding] * 4)
    height, width = maps.shape[2:]
    cut = [
        maps[:, :, y : y + kernel, x : x + kernel].flatten(1)
        for y in range(0, height - kernel + 1, stride)
        for x in range(0, width - kernel + 1, stride)
    ]
    return torch.stack(cut, dim=1)


def token_layer(state: dict[str, Tensor], prefix: str, tokens: Tensor) -> Tensor:
    """A token layer written out, from released names."""

    def of(name: str) -> list[Tensor]:
        return [state[f"{prefix}.{name}.weight"], state[f"{prefix}.{name}.bias"]]

    width = tokens.shape[-1]
    normed = F.layer_norm(tokens, [width], *of("norm1"))
    q, k, v = (normed @ state[f"{prefix}.attn.qkv.weight"].T).chunk(3, dim=-1)
    weights = (q @ k.transpose(1, 2) / math.sqrt(width)).softmax(dim=-1)
    tokens = v + F.linear(weights @ v, *of("attn.proj"))
    hidden = F.gelu(
        F.linear(F.layer_norm(tokens, [tokens.shape[-1]], *of("norm2")), *of("mlp.fc1"))
    )
    return tokens + F.linear(hidden, *of("mlp.fc2"))


@pytest.mark.parametrize("size", [(224, 224), (67, 90)])
def test_tokens_equal_those_written_out(size: tuple[int, int]) -> None:
    network = randomised()
    state = network.state_dict()
    images = torch.randn(2, 3, *size)
    grids = [((size[0] + 1) // 4, (size[1] + 1) // 4)]
    grids += [tuple(-(-side // 2) for side in grids[0])]
    grids += [tuple(-(-side // 2) for side in grids[1])]
    tokens = patches(images, 7, 4, 2)
    for number, grid in enumerate(grids[:2], start=1):
        tokens = token_layer(state, f"tokens_to_token.attention{number}", tokens)
        tokens = patches(tokens.transpose(1, 2).unflatten(2, grid), 3, 2, 1)
    expected = F.linear(
        tokens, state["tokens_to_token.project.weight"], state["tokens_to_token.project.bias"]
    )
    with torch.no_grad():
        tokens, grid = network.tokens_to_token(images)
    assert grid == grids[2]
    assert expected.std() > 0.1
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)


def test_backbone_equals_encoder_layers_of_torch() -> None:
    network = randomised()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        tokens, size = network.tokens_to_token(images)
        tokens = torch.cat([network.cls_token.expand(2, -1, -1), tokens], dim=1)
        tokens = tokens + network.positions(size)
        for block in network.blocks:
            tokens = as_torch(block)(tokens)
        expected = network.head(network.norm(tokens))[:, 0]
        logits = network(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def as_torch(block: Block) -> nn.TransformerEncoderLayer:
    """The same layer by torch."""
    layer = nn.TransformerEncoderLayer(
        48, 3, 144, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    names = {
        "norm1": layer.norm1,
        "norm2": layer.norm2,
        "attn.proj": layer.self_attn.out_proj,
        "mlp.fc1": layer.linear1,
        "mlp.fc2": layer.linear2,
    }
    for name, module in names.items():
        module.load_state_dict(block.get_submodule(name).state_dict(), strict=True)
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.attn.qkv.weight)
        layer.self_attn.in_proj_bias.zero_()
    return layer.eval()


@pytest.mark.parametrize("size", [(224, 224), (320, 256), (800, 1344), (3, 3)])
def test_any_size(size: tuple[int, int]) -> None:
    network = on_meta("t2t_vit_t_14")
    assert network(torch.empty(2, 3, *size, device="meta")).shape == (2, 1000)


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"2 x 64 .* at least 3 pixels"):
        randomised()(torch.randn(1, 3, 2, 64))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_parameter_has_a_finite_gradient(precision: torch.dtype) -> None:
    network = randomised(drop_path=0.0).train()
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        logits = network(torch.randn(2, 3, 48, 80))
    logits.float().square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_drop_path_grows_linearly() -> None:
    network = TokensToTokenViT(**{**SHALLOW, "depth": 5, "drop_path": 0.2})
    rates = [block.drop_path.probability for block in network.blocks]
    torch.testing.assert_close(rates, [0.0, 0.05, 0.1, 0.15, 0.2])
    assert [block.drop_path.probability for block in TokensToTokenViT(**SHALLOW).blocks] == [0, 0.1]


def test_a_released_file_loads_without_a_key_map(tmp_path: Path) -> None:
    source = randomised()
    torch.save({"state_dict": source.state_dict(), "epoch": 3}, tmp_path / "released.pth.tar")
    save_weights(source, tmp_path / "ours.safetensors")
    images = torch.randn(1, 3, 64, 64)
    for path in tmp_path.iterdir():
        network = TokensToTokenViT(**SHALLOW).eval()
        report = load_weights(network, path, "t2t_vit_t_14")
        assert report.loaded == list(source.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(network(images), source(images))
    other = TokensToTokenViT(**{**SHALLOW, "num_classes": 7})
    report = load_weights(other, tmp_path / "released.pth.tar", "t2t_vit_t_14")
    assert report.missing == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("depth", 0),
        ("depth", [14]),
        ("channels", 384.0),
        ("heads", 7),
        ("heads", True),
        ("mlp_ratio", -3),
        ("token_channels", "64"),
        ("drop_path", 1.0),
        ("drop_path", float("nan")),
        ("num_classes", 0),
    ],
)
def test_unusable_values_are_named(option: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"model\.{option}=.*(expected|Choose)"):
        TokensToTokenViT(**{**VARIANTS["t2t_vit_t_14"], option: value})


def test_the_decay_exception_is_the_class_token() -> None:
    network = randomised()
    assert network.no_weight_decay() <= dict(network.named_parameters()).keys()
