"""Names of published files, forms of one model, and positions: what load_weights understands."""

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from pvt_bench.backbones import create, save_weights
from pvt_bench.backbones.files import save_state
from pvt_bench.backbones.matching import compare
from pvt_bench.backbones.naming import translate
from pvt_bench.errors import InputError

State = dict[str, Tensor]

# A network of every kind, where possible small: its options, and what its pyramid lacks.
WIDTHS = [8, 16, 40, 64]
PVT_PARTS = {"cls_token", "cls_position", "norm.weight", "norm.bias"}
HEAD = {"head.weight", "head.bias"}
NORM = {"norm.weight", "norm.bias"}
FORMS = {
    "pvt_tiny": ({"depths": [1] * 4, "channels": WIDTHS}, PVT_PARTS | HEAD),
    "pvt_v2_b0": ({"depths": [1] * 4, "embed_dims": WIDTHS}, HEAD),
    "pvt_v2_b2_li": ({"depths": [1] * 4, "embed_dims": WIDTHS}, HEAD),
    "resnet18": ({}, {"fc.weight", "fc.bias"}),
    "densenet121": ({}, {"classifier.weight", "classifier.bias"}),
    "inception_v3": ({}, {"fc.weight", "fc.bias"}),
    "googlenet": ({}, {"fc.weight", "fc.bias"}),
    "convnext_atto": ({}, {f"head.{a}.{b}" for a in ("norm", "fc") for b in ("weight", "bias")}),
    "swin_tiny_patch4_window7_224": (
        {"depths": [1] * 4},
        NORM | {"head.fc.weight", "head.fc.bias"},
    ),
    "vit_tiny_patch16_224": ({"depth": 4, "pyramid": "interpolated"}, NORM | HEAD),
    "deit_tiny_distilled_patch16_224": (
        {"depth": 4},
        NORM | HEAD | {"head_dist.weight", "head_dist.bias"},
    ),
    "mixed_link_105": ({}, NORM | HEAD | {"norm.running_mean", "norm.running_var"}),
}


MODELS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
# These have no pyramid.
CLASSIFIERS = ("lenet", "t2t", "tnt")


def build(name: str, **more: object) -> nn.Module:
    return create(name, **{"num_classes": 5, **FORMS[name][0], **more})


def released_v2(state: State) -> State:
    """timm's PVTv2 under the names of the released files (whai362/PVT, pvt_v2.py)."""
    renamed = {}
    for name, value in state.items():
        stage = int(found[1]) + 1 if (found := re.match(r"stages\.(\d)\.", name)) else 1
        name = re.sub(r"^stages\.\d\.downsample\.|^patch_embed\.", f"patch_embed{stage}.", name)
        name = re.sub(r"^stages\.\d\.blocks\.", f"block{stage}.", name)
        name = re.sub(r"^stages\.\d\.norm\.", f"norm{stage}.", name)
        renamed[name.replace(".dwconv.", ".dwconv.dwconv.")] = value
    return renamed


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li"])
def test_released_names_of_pvt_v2(name: str, tmp_path: Path) -> None:
    whole = build(name).eval()
    state = released_v2(whole.state_dict())
    assert {
        "patch_embed1.proj.weight",
        "patch_embed4.norm.bias",
        "block1.0.attn.q.weight",
        "block3.0.attn.sr.weight",
        "block2.0.mlp.dwconv.dwconv.weight",
        "norm1.weight",
        "norm4.bias",
        "head.weight",
    } <= state.keys()
    # timm's own filter of released files is the second opinion.
    theirs = timm.models.pvt_v2.checkpoint_filter_fn(state, whole)
    assert theirs.keys() == whole.state_dict().keys()

    path = tmp_path / "released.pth"
    torch.save(state, path)
    images = torch.randn(1, 3, 64, 64)
    again = build(name, weights=str(path)).eval()
    assert again.load_report.loaded == list(whole.state_dict())
    assert not again.load_report.unexpected
    pyramid = build(name, features=True, weights=str(path)).eval()
    assert pyramid.load_report.loaded == list(pyramid.state_dict())
    assert pyramid.load_report.unexpected == ["head.bias", "head.weight"]
    with torch.no_grad():
        torch.testing.assert_close(again(images), whole(images))
        torch.testing.assert_close(pyramid(images)[3], whole.forward_features(images))


def with_dots(state: State) -> State:
    """torchvision's DenseNets as they lie in its files."""
    return {re.sub(r"(denselayer\d+\.\w+)(\d)\.", r"\1.\2.", k): v for k, v in state.items()}


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize(
    ("name", "options", "convert", "left"),
    [
        ("resnet18", {}, dict, ()),
        ("densenet121", {}, with_dots, ()),
        ("googlenet", {"init_weights": False, "aux_logits": True}, dict, ("aux1.", "aux2.")),
        ("inception_v3", {"init_weights": False, "aux_logits": True}, dict, ("AuxLogits.",)),
    ],
)
def test_torchvision_files(
    name: str,
    options: dict,
    convert: Callable[[State], State],
    left: tuple[str, ...],
    features: bool,
    tmp_path: Path,
) -> None:
    theirs = convert(torchvision.models.get_model(name, weights=None, **options).state_dict())
    path = tmp_path / f"{name}.pth"
    torch.save(theirs, path)
    network = create(name, features=features, weights=str(path))
    report = network.load_report
    assert report.loaded == list(network.state_dict())
    rest = [key for key in report.unexpected if not key.startswith(left)]
    assert {key.rpartition(".")[0] for key in rest} <= {"fc", "classifier", "features.norm5"}
    assert bool(rest) == features
    assert len(report.loaded) + len(report.unexpected) == len(theirs)


def behind(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


# How checkpoints hold the tensors of a network (first), beside tensors that are not its (second).
WRAPPINGS: dict[str, Callable[[State, State], dict]] = {
    "data parallel": lambda own, _: {"state_dict": behind("module.", own), "epoch": 3},
    "compiled": lambda own, _: behind("_orig_mod.", own),
    "compiled inside": lambda own, _: behind("module._orig_mod.", own),
    "average": lambda own, other: {"state_dict": other, "state_dict_ema": behind("module.", own)},
    "average of DeiT": lambda own, other: {"model": other, "model_ema": own, "epoch": 299},
    "average alone": lambda own, _: {"state_dict_ema": own},
    "arguments": lambda own, _: {"model": own, "args": argparse.Namespace(lr=1e-3, sizes=[1, 2])},
    "ours": lambda own, other: {
        "state_dict": {**behind("network.backbone.", own), **behind("metric.", other)}
    },
    "Lightning": lambda own, other: {
        "state_dict": {**behind("model.", own), **behind("loss.", other)}
    },
    "detector": lambda own, other: {**behind("backbone.", own), **behind("neck.", other)},
}


@pytest.mark.parametrize("kind", WRAPPINGS)
def test_a_backbone_inside_something_larger(kind: str, tmp_path: Path) -> None:
    whole = build("pvt_v2_b0")
    own = whole.state_dict()
    other = {name: torch.zeros_like(value) for name, value in own.items()}
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(WRAPPINGS[kind](own, other), path)
    network = build("pvt_v2_b0", weights=str(path))
    assert network.load_report.loaded == list(own)
    assert all(torch.equal(value, own[name]) for name, value in network.state_dict().items())
    assert ("_ema)" in network.load_report.source) == kind.startswith("average")


@pytest.mark.parametrize("name", FORMS)
def test_trained_in_one_form_and_used_in_the_other(name: str, tmp_path: Path) -> None:
    pyramid, path = build(name, features=True), tmp_path / "weights.safetensors"
    trained = pyramid.state_dict()
    save_weights(nn.ModuleDict({"backbone": pyramid, "neck": nn.Linear(2, 2)}), path)
    assert build(name, features=True, weights=str(path)).load_report.loaded == list(trained)

    classifier = build(name, weights=str(path))
    report, lacks = classifier.load_report, FORMS[name][1]
    counters = {key for key in report.missing if key.endswith("num_batches_tracked")}
    assert {*report.missing} - counters == lacks
    assert report.missing[0] in str(report)
    added = sorted(key for key in trained if key.startswith("levels."))
    assert report.unexpected == added

    save_weights(nn.ModuleDict({"backbone": classifier}), path)
    again = build(name, features=True, weights=str(path))
    assert lacks <= {*again.load_report.unexpected} <= lacks | counters
    assert sorted(again.load_report.missing) == added
    for key, value in again.state_dict().items():
        assert key in added or torch.equal(value, trained[key]), key


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_model_fits_its_other_form(path: Path) -> None:
    model = yaml.safe_load(path.read_text()) | {"weights": None}
    if path.stem == "timm":
        model["name"] = "convnext_tiny"
    build_form = partial(create, **model)
    with torch.device("meta"):
        classifier = build_form()
        if path.stem.startswith(CLASSIFIERS):
            with pytest.raises(InputError, match="classifier"):
                build_form(features=True)
            return
        pyramid = build_form(features=True)
    taken = compare(pyramid, translate(pyramid, classifier.state_dict()), lambda: classifier)
    given = compare(classifier, translate(classifier, pyramid.state_dict()), lambda: pyramid)
    assert not taken.fault + given.fault
    # What a pyramid adds to published weights is known; what it lacks is the classifier's end.
    assert all(name.startswith("levels.") for name in taken.report.missing)
    lacking = sum(classifier.state_dict()[name].numel() for name in given.report.missing)
    assert lacking < 0.5 * given.report.total


@pytest.mark.parametrize("name", ["pvt_tiny", "densenet121", "deit_tiny_distilled_patch16_224"])
def test_half_a_head_is_a_damaged_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "less.safetensors"
    state = build(name).state_dict()
    for lost in FORMS[name][1]:
        save_state({key: value for key, value in state.items() if key != lost}, path)
        with pytest.raises(InputError, match=rf"Missing in the file: {lost}\."):
            build(name, weights=str(path))


def test_half_a_pyramid_is_a_damaged_file(tmp_path: Path) -> None:
    name, path = "deit_tiny_distilled_patch16_224", tmp_path / "less.safetensors"
    state = build(name, features=True).state_dict()
    del state["levels.0.0.bias"]
    save_state(state, path)
    with pytest.raises(InputError, match=r"Missing in the file: levels\.0\.0\.bias\."):
        build(name, features=True, weights=str(path))


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_positions_of_a_vit_are_resized_without_its_tokens(
    name: str, features: bool, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(build(name), path)
    network = build(name, img_size=320, features=features, weights=str(path))
    own = "body.pos_embed" if features else "pos_embed"
    assert network.load_report.resized == [own]
    assert own in network.load_report.loaded
    positions = load_file(path)["pos_embed"]
    front = 2 if "distilled" in name else 1
    expected = timm.layers.resample_abs_pos_embed(positions, [20, 20], num_prefix_tokens=front)
    torch.testing.assert_close(network.state_dict()[own], expected)
    assert torch.equal(network.state_dict()[own][:, :front], positions[:, :front])


def test_a_detector_of_the_released_pvt(tmp_path: Path) -> None:
    pyramid = build("pvt_tiny", features=True)
    state = {}
    for name, value in pyramid.state_dict().items():
        stage, part = re.match(r"stages\.(\d)\.(\w+)", name).groups()
        part = "block" if part == "blocks" else part
        state[re.sub(r"^stages\.\d\.\w+", f"{part}{int(stage) + 1}", name)] = value
    # Its backbone has no class token, and yet the token's position.
    state["pos_embed4"] = torch.cat([torch.zeros(1, 1, WIDTHS[-1]), state["pos_embed4"]], dim=1)
    path = tmp_path / "retinanet_pvt_t_fpn_1x_coco.pth"
    torch.save({"meta": {"epoch": 12}, "state_dict": behind("backbone.", state)}, path)
    again = build("pvt_tiny", features=True, weights=str(path))
    assert again.load_report.loaded == list(pyramid.state_dict())
    assert again.load_report.unexpected == ["cls_position"]
    assert torch.equal(again.stages[3].pos_embed, pyramid.stages[3].pos_embed)


def test_a_grid_of_one_is_no_class_token(tmp_path: Path) -> None:
    pyramid, path = build("pvt_tiny", features=True, img_size=32), tmp_path / "weights.safetensors"
    save_weights(pyramid, path)
    again = build("pvt_tiny", features=True, img_size=32, weights=str(path))
    assert again.load_report.loaded == list(pyramid.state_dict())
    assert not again.load_report.resized


def test_names_of_the_released_deit_and_t2t() -> None:
    """Samples of facebookresearch/deit, models.py, and yitu-opensource/T2T-ViT, models/."""
    block = ("norm1.weight", "attn.qkv.weight", "attn.proj.bias", "norm2.bias", "mlp.fc1.weight")
    common = {"cls_token", "pos_embed", "norm.weight", "head.weight", "head.bias"}
    common |= {f"blocks.0.{each}" for each in (*block, "mlp.fc2.bias")}
    deit = {"dist_token", "patch_embed.proj.weight", "head_dist.weight", "blocks.0.attn.qkv.bias"}
    assert common | deit <= build("deit_tiny_distilled_patch16_224").state_dict().keys()
    tokens = {f"tokens_to_token.attention{i}.{each}" for i in (1, 2) for each in block}
    with torch.device("meta"):
        own = create("t2t_vit_t_14").state_dict().keys()
    assert common | tokens | {"tokens_to_token.project.weight"} <= own
