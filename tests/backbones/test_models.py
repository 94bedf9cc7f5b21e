"""What every model of conf/model must keep: a new one is tested by its YAML being there."""

import shutil
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

CONF = Path(__file__).parents[2] / "conf" / "model"
CLASSES = 7
LARGE = 30e6  # parameters

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
    folder: Path

    def pyramid(self, **more: Any) -> Any:
        return create(**self.options, features=True, num_classes=CLASSES, **more)

    @cached_property
    def skeleton(self) -> Any:
        with torch.device("meta"):
            return self.pyramid().eval()

    @cached_property
    def skeleton_of_classifier(self) -> Any:
        with torch.device("meta"):
            return create(**self.options, num_classes=CLASSES).eval()

    @cached_property
    def classifier(self) -> nn.Module:
        torch.manual_seed(0)
        with QuickDraws():
            return create(**self.options, num_classes=CLASSES)

    @cached_property
    def images(self) -> torch.Tensor:
        # 75 pixels is the least of all that do not ask for 224.
        side = 224 if self.stem.startswith(FIXED) else 96 if self.stem in UNPADDED else 64
        return torch.randn(2, 3, side, side)

    @cached_property
    def logits(self) -> torch.Tensor:
        with torch.no_grad():
            return self.classifier.eval()(self.images)

    @cached_property
    def weights(self) -> Path:
        path = self.folder / "classifier.safetensors"
        assert len(self.logits), "of the same weights: training in between would change statistics"
        save_weights(self.classifier, path)
        return path


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
    case = Case(stem, options, tmp_path_factory.mktemp("weights"))
    yield case
    shutil.rmtree(case.folder)


@pytest.fixture
def computed(case: Case, request: pytest.FixtureRequest) -> Case:
    """A model of which numbers are computed: of the large ones that takes seconds each."""
    parameters = sum(each.numel() for each in case.skeleton_of_classifier.parameters())
    if parameters > LARGE and not request.config.getoption("--slow"):
        pytest.skip("a large one; --slow computes it")
    return case


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
    network = case.skeleton_of_classifier
    assert network(torch.empty(2, 3, side, side, device="meta")).shape == (2, CLASSES)
    assert len(network.mean) == len(network.std) == 3


def test_gradients_of_the_classifier(computed: Case) -> None:
    logits = computed.classifier.train()(computed.images)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert_finite_gradients(computed.classifier)


def test_saved_weights_give_the_same_logits(computed: Case) -> None:
    with QuickDraws():
        network: Any = create(
            **computed.options, num_classes=CLASSES, weights=str(computed.weights)
        )
    assert len(network.load_report.loaded) == len(network.state_dict())
    with torch.no_grad():
        assert torch.equal(network.eval()(computed.images), computed.logits)


def test_maps_and_their_gradients(computed: Case) -> None:
    if computed.stem.startswith(CLASSIFIERS):
        with pytest.raises(InputError, match="is a classifier"):
            computed.pyramid()
        return
    with QuickDraws():
        pyramid = computed.pyramid(weights=str(computed.weights)).eval()
    with torch.no_grad():
        maps = pyramid(computed.images)
    size = tuple(computed.images.shape[2:])
    assert all(each.isfinite().all() for each in maps)
    assert_declared(pyramid, maps, size, computed.stem)
    # Squares, because the mean of what a norm has just centred has no gradient.
    sum(each.square().mean() for each in pyramid.train()(computed.images)).backward()
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
