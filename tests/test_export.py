"""A trained backbone leaves for timm, and comes back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import pvt_bench.backbones.timm_models  # noqa: F401, registers ours
from pvt_bench.backbones import create, save_weights
from pvt_bench.export import main

MODELS = {
    "pvt_tiny": {"depths": [1, 1, 1, 1], "sr_ratios": [4, 2, 1, 1]},
    "pvt_v2_b0": {"sr_ratios": [4, 2, 1, 1]},
    "resnet18": {},
    "convnext_atto": {},
    "deit_tiny_patch16_224": {"depth": 4},
}


def record(folder: Path, name: str, features: bool) -> tuple[Path, nn.Module]:
    """A run's directory with the weights of a network, as a run leaves it; and its backbone."""
    model = {"name": name, "weights": "imagenet", **MODELS[name]}
    backbone = create(name, num_classes=10, features=features, **MODELS[name])
    network = nn.ModuleDict({"backbone": backbone, "neck": nn.Linear(2, 2)})
    save_weights(network, folder / "weights.safetensors")
    OmegaConf.save({"model": model, "task": {"features": features}}, folder / "config.yaml")
    return folder / "weights.safetensors", backbone


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_timm_takes_an_exported_backbone(
    name: str, features: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, backbone = record(tmp_path, name, features)
    target = tmp_path / "out" / "backbone.safetensors"
    assert main([f"weights={weights}", f"to={target}"]) == 0
    assert ("without" in capsys.readouterr().out) == features
    with safe_open(target, "pt") as file:
        assert json.loads(file.metadata()["model"]) == {"name": name, **MODELS[name]}

    theirs = timm.create_model(name, num_classes=10, **MODELS[name])
    result = theirs.load_state_dict(load_file(target), strict=not features)
    assert not result.unexpected_keys
    parts = {"cls_token", "cls_position", "norm", "head", "fc", "classifier"}
    assert {key.split(".")[0] for key in result.missing_keys} <= parts
    assert bool(result.missing_keys) == features

    size = 224 if name.startswith("deit") else 64
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        if not features:
            torch.testing.assert_close(theirs.eval()(images), backbone.eval()(images))
        elif name in ("pvt_v2_b0", "resnet18"):
            expected = backbone.eval()(images)[3]
            torch.testing.assert_close(theirs.eval().forward_features(images), expected)
    again = create(name, features=features, num_classes=10, weights=str(target), **MODELS[name])
    kept = {key for key in backbone.state_dict() if not key.startswith("levels.")}
    assert {*again.load_report.loaded} == kept
    assert all(torch.equal(again.state_dict()[key], backbone.state_dict()[key]) for key in kept)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["weights= is missing", "to=backbone.safetensors"]),
        (["weights=x.safetensors"], ["to= is missing"]),
        (["weight=x", "to=y.safetensors"], ["no key weight", "weights"]),
        (["weights=x.safetensors", "to=y.pth"], ["to=y.pth", ".safetensors"]),
        (["weights=none.safetensors", "to=y.safetensors"], ["no file none.safetensors"]),
        (["weights={}/alone.safetensors", "to=y.safetensors"], ["config.yaml", "RUN"]),
        (["weights={}/bad/weights.safetensors", "to=y.safetensors"], ["config.yaml", "no model"]),
        (
            ["weights={}/run/weights.safetensors", "to=y.safetensors"],
            ["config.yaml", "conv1.weight"],
        ),
        (
            ["weights={}/good/weights.safetensors", "to={}/file/y.safetensors"],
            ["cannot be written"],
        ),
    ],
)
def test_what_cannot_be_exported(
    words: list[str], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, trained in (("run", "pvt_tiny"), ("bad", "pvt_tiny"), ("good", "resnet18")):
        (tmp_path / folder).mkdir()
        weights, _ = record(tmp_path / folder, trained, features=True)
    (tmp_path / "alone.safetensors").write_bytes(weights.read_bytes())
    OmegaConf.save({"model": {"name": "resnet18"}}, tmp_path / "run" / "config.yaml")
    (tmp_path / "bad" / "config.yaml").write_text("model: [resnet18")
    (tmp_path / "file").touch()
    assert main([word.format(tmp_path) for word in words]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert all(word in message for word in expected)


def test_the_command_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pvt_bench.export", "weights=none.safetensors", "to=y.safetensors"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no file none.safetensors")
    assert "Traceback" not in done.stderr
