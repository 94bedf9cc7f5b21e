"""Loading: all of the right file, none of the wrong one, and no code."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pvt_bench.backbones import create, load_network, load_weights, save_weights
from pvt_bench.backbones.files import load_state, save_state
from pvt_bench.errors import InputError

IMAGES = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def as_released(network: nn.Module) -> dict[str, Tensor]:
    """A classifier's tensors under the names of the released files."""
    state = dict(network.state_dict())
    state["stages.3.pos_embed"] = torch.cat(
        [state.pop("cls_position"), state["stages.3.pos_embed"]], dim=1
    )
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "stages":
            kind = {"blocks": "block"}.get(parts[2], parts[2])
            parts = [f"{kind}{int(parts[1]) + 1}", *parts[3:]]
        renamed[".".join(parts)] = value.contiguous()
    return renamed


def logits(network: nn.Module) -> Tensor:
    with torch.no_grad():
        return network.eval()(IMAGES)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    torch.manual_seed(1)
    network = create("pvt_tiny", num_classes=10)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture(scope="module")
def released(tiny: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "pvt_tiny.pth"
    torch.save(as_released(tiny), path)
    return path


def test_released_names_are_these(released: Path) -> None:
    names = set(load_state(released))
    # A sample of the released classifier's own names (whai362/PVT, classification/pvt.py).
    assert {
        "patch_embed1.proj.weight",
        "patch_embed4.norm.bias",
        "pos_embed4",
        "block1.1.attn.sr.weight",
        "block3.0.attn.norm.weight",
        "block4.1.mlp.fc2.bias",
        "cls_token",
        "norm.weight",
        "head.bias",
    } <= names
    assert load_state(released)["pos_embed4"].shape == (1, 50, 512)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}])
def test_released_file_gives_the_same_logits(
    wrap: Callable, tiny: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap(as_released(tiny)), path)
    network = create("pvt_tiny", num_classes=10, weights=str(path))
    torch.testing.assert_close(logits(network), logits(tiny))
    report = network.load_report
    assert report.loaded == list(network.state_dict())
    assert not report.missing + report.unexpected + report.resized + report.reinitialised
    assert report.parameters == report.total == sum(p.numel() for p in tiny.parameters())
    assert len(str(report).splitlines()) == 1


def test_export_is_read_back(tiny: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "new" / "tiny.safetensors"
    save_weights(tiny, path)
    assert [each.name for each in path.parent.iterdir()] == ["tiny.safetensors"]
    network = create("pvt_tiny", num_classes=10, weights=str(path))
    torch.testing.assert_close(logits(network), logits(tiny))


def test_a_failed_export_leaves_the_old_file(tiny: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(b"old")
    broken = nn.Linear(2, 2)
    broken.weight = nn.Parameter(torch.zeros(2, 2, device="meta"))
    with pytest.raises(NotImplementedError):
        save_weights(broken, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_pyramid_takes_what_it_needs(tiny: nn.Module, released: Path) -> None:
    pyramid = create("pvt_tiny", features=True, weights=str(released)).eval()
    report = pyramid.load_report
    assert report.loaded == list(pyramid.state_dict())
    assert report.unexpected == sorted(
        ["cls_position", "cls_token", "head.bias", "head.weight", "norm.bias", "norm.weight"]
    )
    with torch.no_grad():
        maps, tokens = pyramid(IMAGES), tiny.stages[0](IMAGES)[0]
    torch.testing.assert_close(maps[0].flatten(2).transpose(1, 2), tokens)


def test_other_number_of_classes(released: Path) -> None:
    report = create("pvt_tiny", num_classes=7, weights=str(released)).load_report
    assert report.missing == ["head.weight", "head.bias"]
    assert "head.weight" in str(report)


def test_positions_of_another_grid(tiny: nn.Module, released: Path) -> None:
    network = create("pvt_tiny", num_classes=10, img_size=320, weights=str(released))
    report = network.load_report
    assert report.resized == [f"stages.{stage}.pos_embed" for stage in range(4)]
    assert set(report.resized) <= set(report.loaded)
    torch.testing.assert_close(network.stages[2].pos_embed, tiny.stages[2].positions((20, 20)))


def test_another_variant_is_named_and_nothing_is_touched(released: Path) -> None:
    network = create("pvt_small", num_classes=10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(network, released, "pvt_small")
    message = str(caught.value)
    assert "checkpoint of pvt_tiny" in message
    assert "stages.0.blocks.2" in message
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_deeper_file_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_weights(create("pvt_small", num_classes=10), path)
    with pytest.raises(InputError, match=r"Unknown to the network: .* pvt_small"):
        create("pvt_tiny", num_classes=10, weights=str(path))


def test_one_tensor_less_is_refused(released: Path, tmp_path: Path) -> None:
    state = load_state(released)
    for name in ("block2.0.attn.sr.weight", "norm.bias", "pos_embed3"):
        path = tmp_path / "less.pth"
        torch.save({key: value for key, value in state.items() if key != name}, path)
        with pytest.raises(InputError, match="tensors can be loaded"):
            create("pvt_tiny", num_classes=10, weights=str(path))


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    path, sign = tmp_path / "evil.pth", tmp_path / "it-ran"
    content = {"state_dict": {"head.weight": torch.zeros(2)}, "args": Payload(sign)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="code or objects"):
        create("pvt_tiny", weights=str(path))
    assert not sign.exists()
    path.write_bytes(pickle.dumps(Payload(sign), protocol=2))
    with pytest.raises(InputError):
        load_state(path)
    assert not sign.exists()
    pickle.loads(path.read_bytes())
    assert sign.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files(suffix: str, released: Path, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        path.write_bytes(released.read_bytes())
    else:
        save_weights(nn.Linear(50, 50), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        load_state(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        load_state(path)
    path.write_bytes(b"<html>Not found</html>")
    with pytest.raises(InputError, match=path.name):
        load_state(path)
    path.unlink()
    with pytest.raises(InputError, match="no file"):
        load_state(path)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_timm_names_fit_timm_pyramids(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    whole = timm.create_model(name)
    path = tmp_path / "whole.pth"
    torch.save(whole.state_dict(), path)
    pyramid = create(name, features=True, weights=str(path))
    report = pyramid.load_report
    assert report.loaded == list(pyramid.state_dict())
    assert all(each.split(".")[0] in ("fc", "head", "norm_pre") for each in report.unexpected)
    expected = whole.eval().forward_features(IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(pyramid.eval()(IMAGES)[3], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="does not fit"):
        create("resnet34", features=True, weights=str(path))
    fewer = create(name, num_classes=3, weights=str(path)).load_report
    assert {each.rpartition(".")[2] for each in fewer.missing} == {"weight", "bias"}
    assert len(fewer.missing) == 2


def test_a_whole_network_is_loaded_strictly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    path = tmp_path / "last.ckpt"
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": {**state, "metric.count": torch.zeros(1)}, "epoch": 2}, path)
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    report = load_network(other, path)
    assert len(report.loaded) == 7
    assert torch.equal(other[0].weight, network[0].weight)
    wrong = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    with pytest.raises(InputError, match=r"another model: 1 of the network's 7 .*0\.weight"):
        load_network(wrong, path)


def spoil(kind: str, state: dict[str, Tensor], folder: Path) -> Path:
    """Write a file that is not the network's."""
    path = folder / "weights.pth"
    if kind == "missing":
        torch.save({k: v for k, v in state.items() if k != "layer3.0.bn1.weight"}, path)
    elif kind == "misshaped":
        torch.save({**state, "layer3.0.bn1.weight": torch.zeros(7)}, path)
    elif kind == "left over":
        torch.save({**state, "layer3.2.conv1.weight": torch.zeros(7)}, path)
    elif kind == "another network":
        path = folder / "best.pth.tar"
        torch.save({"arch": "mobilenet", "state_dict": {"module.a": torch.zeros(2)}}, path)
    elif kind == "page":
        path.write_text("<!DOCTYPE html><html><title>404</title></html>")
    else:
        path = folder / "weights.safetensors"
        save_state(state, path)
        path.write_bytes(path.read_bytes()[:-100])
    return path


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "Missing in the file: .*layer3.0.bn1.weight"),
        ("misshaped", r"Of another shape: .*layer3.0.bn1.weight .*\[7\] in the file, \[256\]"),
        ("left over", "Unknown to the network: layer3.2.conv1.weight"),
        ("another network", r"best.pth.tar \(state_dict\) does not fit resnet18: 0 of"),
        ("page", "neither a file of torch.save"),
        ("truncated", "truncated"),
    ],
)
def test_a_network_of_timm_stays_as_it_is(
    kind: str, words: str, features: bool, tmp_path: Path
) -> None:
    path = spoil(kind, create("resnet18").state_dict(), tmp_path)
    network = create("resnet18", features=features)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=words):
        load_weights(
            network, path, "resnet18", counterpart=lambda: create("resnet18", features=not features)
        )
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "other"), [("pvt_v2_b1", "pvt_v2_b0"), ("pvt_v2_b2_li", "pvt_v2_b2")]
)
def test_another_variant_of_pvt_v2_is_named(name: str, other: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(create(name), path)
    for wrong in (other, "pvt_small"):
        with pytest.raises(InputError, match=rf"checkpoint of {name}: use model={name}\?"):
            create(wrong, features=True, weights=str(path))
