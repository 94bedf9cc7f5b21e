"""Published weights: where they lie, how they come, and for which networks there are none."""

from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from pvt_bench.backbones import create, sources
from pvt_bench.errors import InputError

PVT_V2 = {"depths": [1, 1, 1, 1], "embed_dims": [8, 16, 40, 64]}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torch.hub, and an empty cache of huggingface_hub without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def same(network: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_addresses_of_the_official_files() -> None:
    release = "https://github.com/whai362/PVT/releases/download/v2"
    first = ["pvt_tiny", "pvt_small", "pvt_medium", "pvt_large"]
    second = [f"pvt_v2_b{i}" for i in range(6)]
    names = [*first, *second, "pvt_v2_b2_li"]
    assert {name: f"{release}/{name}.pth" for name in names} == sources.OFFICIAL
    googlenet = "https://download.pytorch.org/models/googlenet-1378be20.pth"
    assert sources.torchvision_address("googlenet") == googlenet
    assert sources.torchvision_address("resnet50") is None


@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0"])
def test_official_files_come_from_the_cache(name: str, cache: Path) -> None:
    planted = create(name).state_dict()
    torch.save(planted, cache / f"{name}.pth")
    network = create(name, weights="imagenet")
    assert same(network, planted)
    assert network.load_report.source == sources.OFFICIAL[name]
    pyramid = create(name, features=True, weights="imagenet", sr_ratios=[4, 4, 2, 1])
    assert pyramid.load_report.reinitialised
    assert not pyramid.load_report.missing


def test_torchvision_is_the_source_of_googlenet(cache: Path) -> None:
    theirs = torchvision.models.googlenet(init_weights=False).state_dict()
    torch.save(theirs, cache / "googlenet-1378be20.pth")
    network = create("googlenet", weights="imagenet")
    assert same(network, theirs)
    assert len(network.load_report.loaded) == len(network.state_dict())
    assert create("googlenet", features=True, weights="imagenet").load_report.loaded


def plant_timm(cache: Path, name: str) -> dict[str, torch.Tensor]:
    """Put random weights where huggingface_hub keeps timm's."""
    config = timm.models.get_pretrained_cfg(name)
    folder = cache.parents[1] / "hf" / f"models--{config.hf_hub_id.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    state = timm.create_model(name).state_dict()
    save_file(state, snapshot / "model.safetensors")
    return state


def test_timm_is_the_source_of_its_networks(cache: Path) -> None:
    planted = plant_timm(cache, "resnet18")
    network = create("resnet18", weights="imagenet")
    assert same(network, planted)
    assert "timm/resnet18.a1_in1k" in network.load_report.source
    fewer = create("resnet18", num_classes=7, weights="imagenet").load_report
    assert fewer.missing == ["fc.weight", "fc.bias"]
    pyramid = create("resnet18", features=True, weights="imagenet")
    assert pyramid.load_report.loaded == list(pyramid.state_dict())
    assert pyramid.load_report.unexpected == ["fc.bias", "fc.weight"]


def test_a_base_of_timm_lends_its_weights_to_the_same_network_only(cache: Path) -> None:
    planted = plant_timm(cache, "vit_tiny_patch16_224")
    base = {"base": "vit_tiny_patch16_224", "weights": "imagenet"}
    assert same(create("our_vit", drop_path=0.1, **base), planted)
    assert create("our_vit", features=True, **base).load_report.missing[0].startswith("levels.")
    larger = create("our_vit", img_size=256, **base).load_report
    assert larger.resized == ["pos_embed"]
    for option in ({"depth": 10}, {"qkv_bias": False}, {"num_heads": 6}, {"mlp_ratio": 3}):
        with pytest.raises(InputError, match="no published ImageNet weights of our_vit with"):
            create("our_vit", num_classes=5, **base, **option)


CHANGED = {
    "pvt_small": [
        {"depths": [2, 2, 2, 2]},
        {"heads": [1, 2, 4, 8]},
        {"channels": [32, 64, 160, 256]},
    ],
    "pvt_v2_b0": [{"num_heads": [1, 2, 4, 8]}, {"linear": True}, PVT_V2],
    "pvt_v2_b2_li": [{"linear": False}],
    "resnet18": [{"in_chans": 4}],
}


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", CHANGED)
def test_options_that_make_another_network_are_refused_before_a_download(
    name: str, features: bool, cache: Path
) -> None:
    for options in CHANGED[name]:
        with pytest.raises(InputError, match=f"no published ImageNet weights of {name} with"):
            create(name, features=features, weights="imagenet", **options)
    assert not list(cache.iterdir())


UNPUBLISHED = {
    "t2t_vit_t_14": ({}, "github.com/yitu-opensource/T2T-ViT"),
    "mixed_link_105": ({}, "github.com/DeepInsight-PCALab/MixNet"),
    "lenet5": ({"num_classes": 10}, ""),
    "resnet50_gc": ({}, ""),
    "pvt_small_wide": ({}, ""),
    "vit_small_patch16": ({"base": "vit_small_patch16_224", "embed_dim": 768, "depth": 8}, ""),
}


@pytest.mark.parametrize("name", UNPUBLISHED)
def test_networks_without_published_weights(name: str, cache: Path) -> None:
    options, repository = UNPUBLISHED[name]
    with pytest.raises(InputError, match="no published ImageNet weights") as caught:
        create(name, weights="imagenet", **options)
    message = str(caught.value)
    assert name in message
    assert "model.weights=PATH" in message
    assert repository in message


def content(kind: str, path: Path) -> None:
    """Write what a server may send: the file, a part of it, or a page about an error."""
    torch.save(create("pvt_tiny").state_dict(), path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:100_000])
    elif kind == "page":
        path.write_text("<!DOCTYPE html><title>Sign in</title>")
    elif kind == "missing":
        path.unlink()


@pytest.mark.parametrize("kind", ["whole", "cut", "page", "missing"])
def test_only_a_whole_download_is_kept(
    kind: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = (tmp_path / "pvt_tiny.pth").as_uri()
    content(kind, tmp_path / "pvt_tiny.pth")
    monkeypatch.setitem(sources.OFFICIAL, "pvt_tiny", address)
    if kind == "whole":
        assert create("pvt_tiny", weights="imagenet").load_report.loaded
        assert [each.name for each in cache.iterdir()] == ["pvt_tiny.pth"]
        return
    with pytest.raises(InputError, match="cannot be downloaded") as caught:
        create("pvt_tiny", weights="imagenet")
    assert address in str(caught.value)
    assert str(cache / "pvt_tiny.pth") in str(caught.value)
    assert not list(cache.iterdir())


def test_a_file_with_another_digest_is_not_kept(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights-0123abcd.pth"
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="invalid hash"):
        sources.download(path.as_uri(), "googlenet")
    assert not list(cache.iterdir())


def test_timm_without_a_network_names_the_file(cache: Path) -> None:
    with pytest.raises(InputError, match="cannot be had") as caught:
        create("resnet34", weights="imagenet")
    assert "huggingface.co/timm/resnet34.a1_in1k/resolve/main/model.safetensors" in str(
        caught.value
    )
    assert "model.weights=PATH" in str(caught.value)


def test_a_damaged_file_in_the_cache_of_timm(cache: Path) -> None:
    plant_timm(cache, "resnet18")
    (path,) = (cache.parents[1] / "hf").rglob("model.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be had"):
        create("resnet18", weights="imagenet")
