"""Checkpoints as training scripts write them: the right state dict is found, and nothing runs."""

import argparse
import pickle
import shlex
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import type_in
from torch import Tensor, nn

from pvt_bench.backbones import create, load_network
from pvt_bench.backbones.files import load_state, read_state
from pvt_bench.errors import InputError

State = dict[str, Tensor]


def some_state(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        "conv.weight": torch.randn(4, 3, 2, 2, generator=generator),
        "bn.num_batches_tracked": torch.tensor(seed),
    }


OWN, OTHER = some_state(1), some_state(2)


def behind(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], value) for name, value in expected.items()
    )


# Checkpoints with the state dict to take, OWN, and the keys that lead to it.
LAYOUTS: dict[str, tuple[Any, str]] = {
    "plain": (OWN, ""),
    "ordered": (OrderedDict(OWN), ""),
    "imagenet": ({"state_dict": OWN, "best_acc1": torch.tensor(71.2), "epoch": 3}, "state_dict"),
    "timm": ({"state_dict": OTHER, "state_dict_ema": OWN}, "state_dict_ema"),
    "DeiT": ({"model": OTHER, "model_ema": OWN}, "model_ema"),
    "torch's tutorial": ({"model_state_dict": OWN, "optimizer_state_dict": {}}, "model_state_dict"),
    "FixMatch": ({"state_dict": OTHER, "ema_state_dict": OWN}, "ema_state_dict"),
    "TorchSSL": ({"model": OTHER, "ema_model": OWN}, "ema_model"),
    "mmengine": (
        {"message_hub": {}, "state_dict": OWN, "ema_state_dict": OTHER},
        "state_dict",
    ),
    "pycls": ({"model_state": OTHER, "ema_state": OWN}, "ema_state"),
    "RT-DETR": ({"model": OTHER, "ema": {"module": OWN, "updates": 9}}, "ema.module"),
    "YOLO": ({"model": OWN, "ema": None, "updates": 9}, "model"),
    "DINO": ({"student": OTHER, "teacher": OWN, "args": argparse.Namespace()}, "teacher"),
    "distillation": ({"model": OWN, "teacher": OTHER}, "model"),
    "basicsr": ({"params": OTHER, "params_ema": OWN}, "params_ema"),
    "params": ({"params": OWN}, "params"),
    "DeepSpeed": ({"module": OWN, "global_steps": 3}, "module"),
    "composer": ({"state": {"model": OWN}, "rng": []}, "state.model"),
    "net": ({"net": OWN, "acc": 91.2}, "net"),
    "network": ({"network": OWN}, "network"),
    "student": ({"student": OWN}, "student"),
    "weights": ({"weights": OWN}, "weights"),
    "parts": ({"backbone": OWN, "neck": OTHER}, "backbone"),
    "autoencoder": ({"decoder": OTHER, "encoder": OWN}, "encoder"),
    "one unknown": (
        {
            "my_net": OWN,
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
            "metrics": {"accuracy": torch.tensor(0.5)},
        },
        "my_net",
    ),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_scripts_put_the_state_dict(layout: str, legacy: bool, tmp_path: Path) -> None:
    content, keys = LAYOUTS[layout]
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    file = read_state(path)
    assert same(file.tensors, OWN)
    assert file.place == (f"{path} ({keys})" if keys else str(path))
    assert file.left_out == []


def cyclic() -> dict[str, Any]:
    content: dict[str, Any] = {"epoch": 3}
    content["model"] = content
    return content


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({"epoch": 3, "losses": [1.0]}, "it holds epoch, losses"),
        ({}, "it holds nothing"),
        ([OWN], "it holds list"),
        (torch.zeros(3), "it holds Tensor"),
        ({0: torch.zeros(3)}, "it holds 0"),
        ({"best_acc1": torch.tensor(71.2), "steps": torch.tensor(3)}, "it holds best_acc1, steps"),
        (cyclic(), "it holds epoch, model"),
    ],
)
def test_no_state_dict(content: object, held: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "log.pth")
    with pytest.raises(InputError, match=f"holds no state dict: .*{held}"):
        load_state(tmp_path / "log.pth")


def run_recipe(message: str, folder: Path) -> None:
    """Run the command in the last line of a message as a user does who copies it."""
    type_in(message.rpartition("\n")[2], folder)


def run_recipe_here(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run its program in this process, in the current directory."""
    _, option, program, *words = shlex.split(message.rpartition("\n")[2])
    assert option == "-c"
    monkeypatch.setattr(sys, "argv", ["-c", *words])
    exec(program, {"__name__": "__main__"})


def test_several_unknown_state_dicts(tmp_path: Path) -> None:
    path = tmp_path / "gan.pth"
    torch.save({"nets": {"a b": OWN, "d": OTHER}}, path)
    with pytest.raises(InputError, match=r"several state dicts, under nets\.a b, nets\.d") as error:
        load_state(path)
    run_recipe(str(error.value), tmp_path)
    assert same(load_state(tmp_path / "gan_tensors.pth"), OWN)


def test_what_is_no_tensor_is_left_out_and_named(tmp_path: Path) -> None:
    network = timm.create_model("resnet18")
    own = network.state_dict()
    others = {"epoch": 3, "who": "me", "none": None, "list": [1], "optimizer": {"state": {}}}
    path = tmp_path / "extra.pth"
    torch.save({**own, **others, 7: torch.zeros(2)}, path)
    assert same(load_state(path), own)
    loaded = create("resnet18", weights=str(path))
    assert same(loaded.state_dict(), own)
    report = loaded.load_report
    assert report.left_out == [*others, "7"]
    last = str(report).splitlines()[-1]
    assert last == "  left out, no tensors: epoch, who, none, list, optimizer, 7"
    assert load_network(network, path).left_out == report.left_out


def test_numbers_of_numpy(tmp_path: Path) -> None:
    path = tmp_path / "numpy.pth"
    values = [np.float64(71.2), np.float32(3), np.int64(-7), np.bool_(True), np.str_("é")]
    arrays = [np.arange(6, dtype=">i4").reshape(2, 3), np.array(["a", "bc"]), np.zeros((0, 2))]
    rng = np.random.RandomState(0).get_state()
    content = {"state_dict": OWN, "best": values, "log": arrays, "rng": rng}
    torch.save(content, path)
    assert same(load_state(path), OWN)
    # As numpy 1 names its parts; the old format has no checksums.
    torch.save(content, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes().replace(b"numpy._core", b"numpy.core")
    assert old != path.read_bytes()
    path.write_bytes(old)
    assert same(load_state(path), OWN)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_numpy_are_weights(dtype: str, order: Any, tmp_path: Path) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 5, dtype=dtype, order=order)
    torch.save({"conv.weight": torch.ones(2), "array": array}, tmp_path / "arrays.pth")
    found = load_state(tmp_path / "arrays.pth")["array"]
    assert found.tolist() == array.tolist()
    assert found.numpy().dtype == array.dtype.newbyteorder("=")


class Forged:
    """A call of a function of numpy in a pickle, with arguments of one's own."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


SCALAR = np.float64(1).__reduce__()[0]


@pytest.mark.parametrize(
    "value",
    [
        np.array([None, 1], dtype=object),
        np.zeros(2, dtype=[("a", "O")]),
        np.zeros(2, dtype="M8[s]"),
        Forged(np.dtype, "O"),
        Forged(np.dtype, [("a", "O")]),
        Forged(np.dtype, "f8,O"),
        Forged(SCALAR, np.dtype("O"), b"12345678"),
        Forged(np.frombuffer, b"12345678"),
        np.ma.masked_array([1.0]),
    ],
)
def test_objects_of_numpy_are_refused(value: object, tmp_path: Path) -> None:
    torch.save({"state_dict": OWN, "value": value}, tmp_path / "numpy.pth")
    with pytest.raises(InputError, match=r"code or objects|truncated or damaged"):
        load_state(tmp_path / "numpy.pth")


def test_paths_among_the_arguments(tmp_path: Path) -> None:
    arguments = argparse.Namespace(output=Path("x/y"))
    torch.save({"model": OWN, "args": arguments}, tmp_path / "args.pth")
    assert same(load_state(tmp_path / "args.pth"), OWN)


def test_a_damaged_pickle_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    content = {"state_dict": OWN, "best": np.float64(2), "log": np.arange(3)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for position in range(2, len(whole), 5):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :])
        try:
            load_state(path)
        except InputError as error:
            assert path.name in str(error)  # noqa: PT017


# Names of a backbone's tensors (first) beside another's of the same shapes, and the prefix to take.
PREFIXES: dict[str, tuple[Callable[[State, State], State], str]] = {
    "data parallel": (lambda own, _: behind("module.", own), "module."),
    "compiled": (lambda own, _: behind("_orig_mod.", own), "_orig_mod."),
    "compiled inside": (lambda own, _: behind("model._orig_mod.", own), "model._orig_mod."),
    "Lightning": (lambda own, _: behind("model.", own), "model."),
    "DINO": (
        lambda own, _: {**behind("module.backbone.", own), "module.head.w": torch.ones(2)},
        "module.backbone.",
    ),
    "SimMIM": (lambda own, _: {**behind("encoder.", own), "decoder.w": torch.ones(2)}, "encoder."),
    "MoCo": (
        lambda own, other: {
            **behind("module.encoder_q.", own),
            **behind("module.encoder_k.", other),
            "module.queue": torch.zeros(3, 3),
        },
        "module.encoder_q.",
    ),
    "DINOv2": (
        lambda own, other: {
            **behind("student.backbone.", other),
            **behind("teacher.backbone.", own),
        },
        "teacher.backbone.",
    ),
    "average": (lambda own, other: {**behind("model.", other), **behind("ema.", own)}, "ema."),
    "normalised": (lambda own, _: {"0.mean": torch.zeros(3), **behind("1.", own)}, "1."),
    "mmdet": (
        lambda own, _: {**behind("backbone.", own), "bbox_head.cls.weight": torch.zeros(4, 4)},
        "backbone.",
    ),
    "DETR": (
        lambda own, _: {**behind("backbone.0.body.", own), "query_embed.weight": torch.zeros(4, 4)},
        "backbone.0.",
    ),
}


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("kind", PREFIXES)
def test_a_backbone_behind_a_prefix(kind: str, features: bool, tmp_path: Path) -> None:
    own, other = (timm.create_model("resnet18").state_dict() for _ in range(2))
    wrap, prefix = PREFIXES[kind]
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": wrap(own, other)}, path)
    network = create("resnet18", features=features, weights=str(path))
    report = network.load_report
    assert report.source == f"{path} (state_dict), {prefix}*"
    assert report.loaded == list(network.state_dict())
    for name, value in network.state_dict().items():
        assert torch.equal(value, own[name.removeprefix("body.")])


def test_the_neck_inside_a_backbone_of_torchvision(tmp_path: Path) -> None:
    own = {k: v for k, v in timm.create_model("resnet18").state_dict().items() if k[:3] != "fc."}
    neck = {"backbone.fpn.inner_blocks.0.0.weight": torch.zeros(4, 4, 1, 1)}
    torch.save({"model": {**behind("backbone.body.", own), **neck}}, tmp_path / "retinanet.pth")
    report = create("resnet18", weights=str(tmp_path / "retinanet.pth")).load_report
    assert report.missing == ["fc.weight", "fc.bias"]
    assert report.unexpected == ["fpn.inner_blocks.0.0.weight"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    own = timm.create_model("resnet18").to(dtype).state_dict()
    torch.save(own, tmp_path / "half.pth")
    network = create("resnet18", weights=str(tmp_path / "half.pth"))
    for name, value in network.state_dict().items():
        assert value.dtype == (torch.float32 if own[name].is_floating_point() else torch.int64)
        assert torch.equal(value, own[name].to(value.dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    network = timm.create_model("resnet18")
    own, path = network.state_dict(), tmp_path / "nan.pth"
    torch.save({**own, "fc.weight": torch.full_like(own["fc.weight"], value)}, path)
    expected = r"nan\.pth has NaN or infinity in fc\.weight: expected finite"
    before = {name: each.clone() for name, each in own.items()}
    with pytest.raises(InputError, match=expected):
        load_network(network, path)
    with pytest.raises(InputError, match=expected):
        create("resnet18", weights=str(path))
    assert same(network.state_dict(), before)
    assert create("resnet18", features=True, weights=str(path)).load_report.loaded


def test_shapes_without_values(tmp_path: Path) -> None:
    with torch.device("meta"):
        torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "meta.pth")
    with pytest.raises(InputError, match=r"only shapes .*conv1\.weight"):
        create("resnet18", weights=str(tmp_path / "meta.pth"))


# What a file holds, made of a network, and where the recipe's file then has the tensors.
OBJECTS: dict[str, tuple[Callable[[nn.Module], Any], str, str]] = {
    "module": (lambda network: network, "timm.models.resnet.ResNet", ""),
    "parallel": (nn.DataParallel, "DataParallel", ", module.*"),
    "YOLO": (
        lambda network: {"model": network, "ema": None, "epoch": 3, "opt": argparse.Action},
        "timm.models.resnet.ResNet",
        " (model)",
    ),
    "average": (
        lambda network: {"model": timm.create_model("resnet34"), "ema": network},
        "timm.models.resnet.ResNet",
        " (ema)",
    ),
    "objects beside": (
        lambda network: {"state_dict": network.state_dict(), "log": np.array([None], dtype=object)},
        r"numpy.dtype\(O8\)",
        " (state_dict)",
    ),
    "optimizer": (
        lambda network: {"net": network.state_dict(), "opt": torch.optim.SGD(network.parameters())},
        "torch.optim.sgd.SGD",
        " (net)",
    ),
}


AWKWARD = 'it\'s "mine" $HOME.pt'


@pytest.mark.parametrize(
    ("kind", "name", "shell"),
    [
        ("optimizer", "-é.pth.tar", True),
        ("module", AWKWARD, True),
        *((kind, AWKWARD, False) for kind in OBJECTS),
    ],
)
def test_the_recipe_for_objects_works(
    kind: str, name: str, shell: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = timm.create_model("resnet18")
    make, what, place = OBJECTS[kind]
    torch.save(make(network), name)
    with pytest.raises(InputError, match=what) as error:
        create("resnet18", weights=name)
    if shell:
        run_recipe(str(error.value), tmp_path)
    else:
        run_recipe_here(str(error.value), monkeypatch)
    target = f"{Path(name).stem}_tensors.pth"
    assert f"use that one's path, {target}:\n" in str(error.value)
    loaded = create("resnet18", weights=target)
    assert same(loaded.state_dict(), network.state_dict())
    assert loaded.load_report.source == f"{target}{place}"


def test_the_recipe_for_torchscript(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    network = timm.create_model("resnet18")
    torch.jit.trace(network.eval(), torch.zeros(1, 3, 64, 64)).save(tmp_path / "script.pt")
    recwarn.clear()
    with pytest.raises(InputError, match="code or objects") as error:
        load_state(tmp_path / "script.pt")
    assert not recwarn
    run_recipe(str(error.value), tmp_path)
    assert same(load_state(tmp_path / "script_tensors.pth"), network.state_dict())


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"a": np.zeros(3)}, protocol=4))
    with pytest.raises(InputError, match=r"neither a file of torch\.save"):
        load_state(path)
