"""PVT against an independent implementation, its published sizes, and itself written out."""

import pytest
import torch
from torch import Tensor, nn

from pvt_bench.backbones import create
from pvt_bench.backbones.pvt import VARIANTS, DropPath, PyramidVisionTransformer
from pvt_bench.errors import InputError

PUBLISHED_PARAMETERS = {"pvt_tiny": 13.2, "pvt_small": 24.5, "pvt_medium": 44.2, "pvt_large": 61.4}
SIZES = [(224, 224), (320, 256), (480, 800), (97, 130)]


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter, so that no zero bias or unit scale hides a wrong one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.05 if parameter.ndim > 1 else 0.1
            one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(one + scale * noise)
    return network.eval()


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our classifier's tensors under the names of transformers' PvtForImageClassification."""
    names = {
        "norm1": "layer_norm_1",
        "norm2": "layer_norm_2",
        "attn.q": "attention.self.query",
        "attn.proj": "attention.output.dense",
        "attn.sr": "attention.self.sequence_reduction",
        "attn.norm": "attention.self.layer_norm",
        "mlp.fc1": "mlp.dense1",
        "mlp.fc2": "mlp.dense2",
    }
    mapped = {
        "pvt.encoder.layer_norm.weight": state["norm.weight"],
        "pvt.encoder.layer_norm.bias": state["norm.bias"],
        "pvt.encoder.patch_embeddings.3.cls_token": state["cls_token"],
        "classifier.weight": state["head.weight"],
        "classifier.bias": state["head.bias"],
    }
    for name, value in state.items():
        if not name.startswith("stages."):
            continue
        _, stage, part, *rest = name.split(".")
        embedding = f"pvt.encoder.patch_embeddings.{stage}."
        if part == "pos_embed":
            first = [state["cls_position"]] if stage == "3" else []
            mapped[f"{embedding}position_embeddings"] = torch.cat([*first, value], dim=1)
        elif part == "patch_embed":
            layer = {"proj": "projection", "norm": "layer_norm"}[rest[0]]
            mapped[f"{embedding}{layer}.{rest[1]}"] = value
        else:
            block, layer, kind = rest[0], ".".join(rest[1:-1]), rest[-1]
            prefix = f"pvt.encoder.block.{stage}.{block}."
            if layer == "attn.kv":
                for half, key in zip(value.chunk(2), ("key", "value"), strict=True):
                    mapped[f"{prefix}attention.self.{key}.{kind}"] = half
            else:
                mapped[f"{prefix}{names[layer]}.{kind}"] = value
    return mapped


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_logits_equal_those_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    ours = randomise(create(name, num_classes=10))
    config = transformers.PvtConfig(depths=list(VARIANTS[name]["depths"]), num_labels=10)
    theirs = transformers.PvtForImageClassification(config).eval()
    theirs.load_state_dict(to_transformers(ours.state_dict()), strict=True)
    for module_name, module in theirs.named_modules():
        # transformers has 1e-6 everywhere; the released code has torch's 1e-5 in these two.
        if module_name.endswith("layer_norm") and module_name != "pvt.encoder.layer_norm":
            module.eps = 1e-5
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, logits = theirs(images).logits, ours(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_published_parameters(name: str) -> None:
    with torch.device("meta"):
        network = create(name)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert round(millions, 1) == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("size", [(224, 224), (256, 320), (480, 800), (97, 130)])
def test_fused_attention_equals_plain(size: tuple[int, int]) -> None:
    depths = [1, 1, 1, 1] if size == (480, 800) else [2, 2, 2, 2]
    fused = randomise(create("pvt_tiny", features=True, depths=depths))
    plain = create("pvt_tiny", features=True, depths=depths, attention="plain").eval()
    plain.load_state_dict(fused.state_dict(), strict=True)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    gradients, outputs = [], []
    for network in (fused, plain):
        maps = network(images)
        sum(each.square().mean() for each in maps).backward()
        outputs.append([each.detach() for each in maps])
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
    for name, gradient in gradients[0].items():
        error = (gradient - gradients[1][name]).norm() / gradients[1][name].norm().clamp(min=1e-6)
        assert error < 1e-3, name


@pytest.mark.parametrize("size", SIZES)
def test_maps_have_the_stated_channels_and_strides(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = create("pvt_small", features=True)
        maps = network(torch.empty(2, 3, *size))
    assert network.strides == [4, 8, 16, 32]
    expected = [
        (2, channels, size[0] // stride, size[1] // stride)
        for channels, stride in zip(network.channels, network.strides, strict=True)
    ]
    assert [tuple(each.shape) for each in maps] == expected


@pytest.mark.parametrize("batch", [1, 2])
def test_maps_are_channels_last(batch: int) -> None:
    network = create("pvt_tiny", features=True, depths=[1, 1, 1, 1]).eval()
    maps = network(torch.randn(batch, 3, 96, 64))
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)


def test_every_parameter_of_a_pyramid_has_a_gradient() -> None:
    network = create("pvt_tiny", features=True, drop_path=0.0)
    sum(each.square().mean() for each in network(torch.randn(2, 3, 97, 130))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias of the keys shifts all scores of a query alike, so only its half may be zero.
        assert parameter.grad.abs().sum() > 0, name


def test_position_embeddings_are_resized_bilinearly() -> None:
    stage = create("pvt_tiny", features=True).stages[0]
    ramp = torch.linspace(0.0, 1.0, 56).expand(56, 56).flatten()
    with torch.no_grad():
        stage.pos_embed.copy_(ramp[None, :, None].expand_as(stage.pos_embed))
        positions = stage.positions((28, 112)).reshape(28, 112, 64)
    # Half-pixel centres: column j of 112 lies at (j + 0.5) / 2 - 0.5 of 56, held at the borders.
    columns = ((torch.arange(112) + 0.5) / 2 - 0.5).clamp(0, 55) / 55
    torch.testing.assert_close(positions, columns[None, :, None].expand(28, 112, 64))


def test_a_ratio_wider_than_the_map_equals_zero_padding() -> None:
    wide = randomise(create("pvt_tiny", features=True, sr_ratios=[16, 8, 4, 2]))
    attention = wide.stages[3].blocks[0].attn
    tokens = torch.randn(1, 1, 512)
    padded = torch.zeros(1, 512, 2, 2)
    padded[0, :, 0, 0] = tokens[0, 0]
    expected = attention.norm(attention.sr(padded).flatten(2).transpose(1, 2))
    torch.testing.assert_close(attention.reduce(tokens, (1, 1)), expected)
    assert wide(torch.randn(1, 3, 32, 32))[3].shape == (1, 512, 1, 1)


def test_the_class_token_is_not_reduced() -> None:
    network = randomise(create("pvt_tiny", num_classes=5, sr_ratios=[8, 4, 2, 2]))
    attention = network.stages[3].blocks[0].attn
    tokens = torch.randn(1, 1 + 16, 512)
    reduced = attention.reduce(tokens, (4, 4))
    assert reduced.shape == (1, 1 + 4, 512)
    torch.testing.assert_close(reduced[:, 0], tokens[:, 0])
    assert network(torch.randn(2, 3, 128, 128)).shape == (2, 5)


def test_drop_path_grows_linearly_and_keeps_the_expectation() -> None:
    network = create("pvt_small", drop_path=0.3)
    rates = [module.probability for module in network.modules() if isinstance(module, DropPath)]
    torch.testing.assert_close(rates, torch.linspace(0, 0.3, 16, dtype=torch.double).tolist())
    torch.manual_seed(0)
    drop = DropPath(0.3).train()
    dropped = drop(torch.ones(20000, 1, 1))
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(drop.eval()(dropped), dropped)


def test_omegaconf_lists_are_read() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    lists = omegaconf.OmegaConf.create({"depths": [1, 1, 1, 1], "sr_ratios": [4, 2, 1, 1]})
    network = create("pvt_tiny", **lists)
    assert network.stages[0].blocks[0].attn.sr.kernel_size == (4, 4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("depths", [2, 2, 2]),
        ("depths", 3),
        ("channels", [64, 128, 320, -512]),
        ("heads", [1, 2, 5, True]),
        ("heads", [1, 2, 3, 8]),
        ("mlp_ratios", [8, 8, 4, 0]),
        ("sr_ratios", [8, 4, 2.5, 1]),
        ("sr_ratios", "8421"),
        ("patch_sizes", [4, 2, 2, None]),
        ("drop_path", 1.0),
        ("drop_path", -0.1),
        ("drop_path", "much"),
        ("drop_path", float("nan")),
        ("attention", "flash"),
        ("num_classes", 0),
        ("in_chans", 0),
        ("img_size", 16),
        ("img_size", "224"),
    ],
)
def test_unusable_values_are_named(option: str, value: object) -> None:
    with pytest.raises(InputError) as caught:
        create("pvt_small", **{option: value})
    message = str(caught.value)
    assert f"model.{option}=" in message
    assert "expected" in message or "use" in message.lower() or "Choose" in message
    assert str(value).strip("'") in message


def test_too_small_an_image_is_refused() -> None:
    network = create("pvt_tiny", features=True, depths=[1, 1, 1, 1])
    with pytest.raises(InputError, match=r"31 x 64 .* 32"):
        network(torch.randn(1, 3, 31, 64))


def test_works_under_autocast() -> None:
    network = create("pvt_tiny", num_classes=5, depths=[1, 1, 1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.randn(2, 3, 64, 64))
    logits.float().square().mean().backward()
    assert logits.isfinite().all()


def test_the_decay_exception_is_the_class_token() -> None:
    classifier = PyramidVisionTransformer(depths=[1, 1, 1, 1])
    assert classifier.no_weight_decay() <= dict(classifier.named_parameters()).keys()
    assert PyramidVisionTransformer(depths=[1, 1, 1, 1], features=True).no_weight_decay() == set()
