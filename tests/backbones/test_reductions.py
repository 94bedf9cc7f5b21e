"""Weights of one reduction ratio in a network of another, PVT and PVTv2: the study of ratios."""

import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pvt_bench.backbones import create
from pvt_bench.backbones.files import save_state
from pvt_bench.errors import InputError

WIDTHS = [8, 16, 40, 64]
SMALL = {
    "pvt_tiny": {"depths": [1, 2, 1, 1], "channels": WIDTHS, "mlp_ratios": [1, 1, 1, 1]},
    "pvt_v2_b0": {"depths": [1, 2, 1, 1], "embed_dims": WIDTHS, "mlp_ratios": [1, 1, 1, 1]},
    "pvt_v2_b2_li": {"depths": [1, 2, 1, 1], "embed_dims": WIDTHS, "mlp_ratios": [1, 1, 1, 1]},
}
FAMILIES = ("pvt_tiny", "pvt_v2_b0")
PUBLISHED = [8, 4, 2, 1]
OTHERS = ([16, 8, 4, 2], [4, 2, 1, 1], [3, 5, 7, 2], [8, 4, 2, 2], [1, 1, 1, 1])
REDUCTION = re.compile(r"stages[._](\d)\.blocks\.\d\.attn\.(sr|norm)\.")


def build(name: str, **options: object) -> nn.Module:
    torch.manual_seed(3)
    return create(name, **{**SMALL[name], "num_classes": 5, **options})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Classifiers with the published ratios, every value another than where a network starts."""
    folder = tmp_path_factory.mktemp("published")
    paths = {}
    for name in SMALL:
        state = create(name, **SMALL[name], num_classes=5).state_dict()
        paths[name] = folder / f"{name}.safetensors"
        save_state({key: torch.randn_like(value) for key, value in state.items()}, paths[name])
    return paths


def stages_of(names: list[str]) -> set[int]:
    """The stages whose reductions are among the names."""
    return {int(found[1]) for name in names if (found := REDUCTION.search(name))}


def without_body(name: str) -> str:
    return name.removeprefix("body.").replace("stages_", "stages.")


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("ratios", OTHERS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_reduction_of_another_ratio_is_new(
    name: str, ratios: list[int], features: bool, files: dict[str, Path]
) -> None:
    fresh = build(name, sr_ratios=ratios, features=features).state_dict()
    network = build(name, sr_ratios=ratios, features=features, weights=str(files[name]))
    report = network.load_report
    changed = {i for i in range(4) if ratios[i] != PUBLISHED[i]}
    reduced_here = {i for i in range(4) if ratios[i] > 1}
    reduced_there = {i for i in range(4) if PUBLISHED[i] > 1}
    assert stages_of(report.reinitialised) == changed & reduced_here
    assert stages_of(report.unexpected) == changed & reduced_there - reduced_here
    assert all(REDUCTION.search(key) for key in report.reinitialised)
    assert "reduction ratio" in str(report) or not report.reinitialised
    assert sorted(report.loaded + report.reinitialised) == sorted(fresh)

    file = load_file(files[name])
    for key, value in network.state_dict().items():
        expected = fresh[key] if key in report.reinitialised else file[without_body(key)]
        assert torch.equal(value, expected), key
    with torch.no_grad():
        result = network.eval()(torch.randn(1, 3, 224, 224))
    assert all(each.isfinite().all() for each in (result if features else [result]))


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_new_reductions_start_as_their_network_starts_them(
    name: str, features: bool, files: dict[str, Path]
) -> None:
    ratios = [16, 16, 4, 2]
    network = build(name, sr_ratios=ratios, features=features, weights=str(files[name]))
    convolutions = [
        module
        for key, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and key.endswith("attn.sr")
    ]
    assert len(convolutions) == 5
    for convolution in convolutions:
        width, _, side, _ = convolution.weight.shape
        if name == "pvt_tiny":  # torch's own start: uniform, within 1 / sqrt(fan_in)
            bound = 1 / math.sqrt(width * side**2)
            assert convolution.weight.abs().max() <= bound
            assert convolution.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
            assert 0 < convolution.bias.abs().max() <= bound
        else:  # the released one: normal, variance 2 / fan_out, no bias
            deviation = math.sqrt(2 / (width * side**2))
            assert convolution.weight.std().item() == pytest.approx(deviation, rel=0.05)
            assert convolution.bias.eq(0).all()


def as_multi_head_attention(state: dict[str, Tensor], heads: int) -> nn.MultiheadAttention:
    """torch's own attention with the projections of an attention without reduction."""
    width = len(state["q.weight"])
    theirs = nn.MultiheadAttention(width, heads, batch_first=True)
    mapped = {
        "in_proj_weight": torch.cat([state["q.weight"], state["kv.weight"]]),
        "in_proj_bias": torch.cat([state["q.bias"], state["kv.bias"]]),
        "out_proj.weight": state["proj.weight"],
        "out_proj.bias": state["proj.bias"],
    }
    theirs.load_state_dict(mapped)
    return theirs


@pytest.mark.parametrize("name", FAMILIES)
def test_ratio_one_is_plain_multi_head_attention(name: str, files: dict[str, Path]) -> None:
    network = build(name, sr_ratios=[1, 1, 1, 1], weights=str(files[name])).eval()
    attention = network.stages[1].blocks[0].attn
    tokens = torch.randn(2, 12, WIDTHS[1])
    theirs = as_multi_head_attention(attention.state_dict(), heads=2)
    with torch.no_grad():
        expected = theirs(tokens, tokens, tokens, need_weights=False)[0]
        torch.testing.assert_close(attention(tokens, [3, 4]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", [False, True])
def test_linear_attention_has_no_ratio(features: bool, files: dict[str, Path]) -> None:
    path = str(files["pvt_v2_b2_li"])
    network = build("pvt_v2_b2_li", sr_ratios=[4, 2, 1, 1], features=features, weights=path)
    assert network.load_report.loaded == list(network.state_dict())
    assert not stages_of(network.load_report.unexpected)
    with pytest.raises(InputError, match=r"attn\.sr\.weight"):
        build("pvt_v2_b0", features=features, weights=path)
    with pytest.raises(InputError, match=r"Unknown to the network: .*attn\.norm\.weight"):
        build("pvt_v2_b0", sr_ratios=[1, 1, 1, 1], features=features, weights=path)
    with pytest.raises(InputError, match=r"attn\.sr\.weight"):
        build("pvt_v2_b2_li", features=features, weights=str(files["pvt_v2_b0"]))


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_damaged_reduction_is_not_another_ratio(
    name: str, features: bool, files: dict[str, Path], tmp_path: Path
) -> None:
    state = load_file(files[name])
    path = tmp_path / "less.safetensors"
    save_state({k: v for k, v in state.items() if k != "stages.1.blocks.1.attn.sr.weight"}, path)
    with pytest.raises(InputError, match="tensors can be loaded"):
        build(name, features=features, weights=str(path))
