"""What every model of conf/model must keep: a new one is tested by its YAML being there."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.overrides import TorchFunctionMode

from pvt_bench.backbones import create, save_weights
from pvt_bench.errors import InputError

CONF = Path(__file__).parents[1] / "conf" / "model"
CLASSES = 7

# The YAML for any network of timm is tested with a few.
ANY = {"timm": ["convnext_tiny", "efficientnet_b0"]}
CASES = [
    (path.stem, name) for path in sorted(CONF.glob("*.yaml")) for name in ANY.get(path.stem, [None])
]

CLASSIFIERS = ("lenet5", "t2t_vit_t_", "tnt_")
# Of the published protocol, where it is not 224 pixels a side.
SIDES = {"inception_v3": 299, "inception_v4": 299}
# Networks of timm that take 224 x 224 pixels only.
FIXED = ("coat_lite_", "tnt_")
# Convolutions without padding make the maps smaller than H / s x W / s.
UNPADDED = ("inception_v3", "inception_v4")


@dataclass
class Case:
    """A model as its YAML says; its classifier, small images, their logits, and its weights."""

    stem: str
    options: dict[str, Any]
    classifier: nn.Module
    images: torch.Tensor
    logits: torch.Tensor
    weights: Path

    def pyramid(self, **more: Any) -> Any:
        return create(**self.options, features=True, num_classes=CLASSES, **more)

    @cached_property
    def skeleton(self) -> Any:
        with torch.device("meta"):
            return self.pyramid().eval()


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[1] or case[0])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    stem, name = request.param
    options = yaml.safe_load((CONF / f"{stem}.yaml").read_text())
    assert options.pop("weights") is None
    if name is not None:
        assert options["name"] == "???"
        options["name"] = name
    torch.manual_seed(0)
    with QuickDraws():
        classifier = create(**options, num_classes=CLASSES)
    # 75 pixels is the least of all that do not ask for 224.
    side = 224 if stem.startswith(FIXED) else 96 if stem in UNPADDED else 64
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        logits = classifier.eval()(images)
    path = tmp_path_factory.mktemp("weights") / "classifier.safetensors"
    save_weights(classifier, path)
    yield Case(stem, options, classifier, images, logits, path)
    path.unlink()


class QuickDraws(TorchFunctionMode):
    """Networks built in this context draw some thousand numbers and repeat them: it is faster."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        if func.__name__ not in ("uniform_", "normal_", "trunc_normal_") or tensor.is_meta:
            return func(*args, **kwargs)
        flat = tensor.detach().view(-1)
        drawn = torch.empty(min(len(flat), 4099))
        func(drawn, *args[1:], **{k: value for k, value in kwargs.items() if k != "tensor"})
        flat.copy_(drawn.repeat(-(-len(flat) // len(drawn)))[: len(flat)])
        return tensor


def assert_finite_gradients(network: nn.Module) -> None:
    """A gradient reaches every parameter; none is exempt."""
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_logits_at_the_models_size(case: Case) -> None:
    side = SIDES.get(case.stem, 224)
    with torch.device("meta"):
        network: Any = create(**case.options, num_classes=CLASSES).eval()
        assert network(torch.empty(2, 3, side, side)).shape == (2, CLASSES)
    assert len(network.mean) == len(network.std) == 3


def test_gradients_of_the_classifier(case: Case) -> None:
    logits = case.classifier.train()(case.images)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert_finite_gradients(case.classifier)


def test_saved_weights_give_the_same_logits(case: Case) -> None:
    with QuickDraws():
        network: Any = create(**case.options, num_classes=CLASSES, weights=str(case.weights))
    assert len(network.load_report.loaded) == len(network.state_dict())
    with torch.no_grad():
        assert torch.equal(network.eval()(case.images), case.logits)


def test_maps_and_their_gradients(case: Case) -> None:
    if case.stem.startswith(CLASSIFIERS):
        with pytest.raises(InputError, match="is a classifier"):
            case.pyramid()
        return
    with QuickDraws():
        pyramid = case.pyramid(weights=str(case.weights)).eval()
    with torch.no_grad():
        maps = pyramid(case.images)
    size = tuple(case.images.shape[2:])
    assert all(each.isfinite().all() for each in maps)
    assert_declared(pyramid, maps, size, case.stem)
    assert [tuple(each.shape[2:]) for each in maps] == pyramid.grid(*size)
    # Squares, because the mean of what a norm has just centred has no gradient.
    sum(each.square().mean() for each in pyramid.train()(case.images)).backward()
    assert_finite_gradients(pyramid)


@pytest.mark.parametrize("size", [(224, 224), (320, 256), (800, 1344)], ids=str)
def test_maps_of_other_sizes(case: Case, size: tuple[int, int]) -> None:
    if case.stem.startswith(CLASSIFIERS):
        return
    images = torch.empty(1, 3, *size, device="meta")
    if case.stem.startswith(FIXED) and size != (224, 224):
        with pytest.raises(InputError, match="224 x 224"):
            case.skeleton(images)
    else:
        assert_declared(case.skeleton, case.skeleton(images), size, case.stem)


def assert_declared(pyramid: Any, maps: list, size: tuple[int, int], stem: str) -> None:
    """The maps are as the pyramid declares them, and at full size where convolutions pad."""
    assert pyramid.strides == [4, 8, 16, 32]
    assert [each.shape[1] for each in maps] == pyramid.channels
    if stem not in UNPADDED:
        grid = [tuple(each.shape[2:]) for each in maps]
        assert grid == [(size[0] // stride, size[1] // stride) for stride in pyramid.strides]
