"""timm's side: its networks as our backbones, and ours under timm's names.

After `import pvt_bench.backbones.timm_models`, `timm.create_model("pvt_small")` builds ours. The
package itself does not import this module before it must: importing timm takes seconds.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import timm
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor, nn

from pvt_bench.backbones.freezing import Freezable
from pvt_bench.backbones.naming import head_prefixes
from pvt_bench.backbones.pvt import VARIANTS, PyramidVisionTransformer
from pvt_bench.backbones.weights import LoadReport, load_weights
from pvt_bench.errors import InputError, nearest

STRIDES = (4, 8, 16, 32)

# timm's Swin refuses sizes other than its own unless told so.
OPTIONS: dict[str, dict[str, Any]] = {"swin": {"strict_img_size": False}}


class TimmPyramid(Freezable):
    """The maps of a timm network at strides 4, 8, 16 and 32.

    Raises:
        InputError: the network has no such maps.
    """

    def __init__(self, name: str, pretrained: bool = False, **options: Any) -> None:
        super().__init__()
        try:
            self.body = build(name, features_only=True, pretrained=pretrained, **options)
        except (RuntimeError, AttributeError, AssertionError, NotImplementedError) as error:
            raise InputError(no_pyramid(name, f"timm says: {error}")) from error
        reductions = self.body.feature_info.reduction()
        if missing := [stride for stride in STRIDES if stride not in reductions]:
            raise InputError(no_pyramid(name, f"it has {reductions}, without {missing}."))
        self.features = True
        # The last map of a stride is the one furthest in depth.
        self.levels = [max(i for i, r in enumerate(reductions) if r == s) for s in STRIDES]
        self.strides = list(STRIDES)
        self.channels = [self.body.feature_info.channels()[level] for level in self.levels]
        self.mean, self.std = normalisation(self.body)
        self.channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to four maps (B, C_i, H_i, W_i)."""
        maps = self.body(images)
        if self.channels_last:
            maps = [each.permute(0, 3, 1, 2) for each in maps]
        return [maps[level] for level in self.levels]

    def stage_modules(self) -> list[list[nn.Module]]:
        """The body's modules up to each of the four maps."""
        ends = [
            self.body.feature_info.module_name(level).replace(".", "_") for level in self.levels
        ]
        stages: list[list[nn.Module]] = [[]]
        for name, module in self.body.named_children():
            stages[-1].append(module)
            if name in ends[:-1]:
                stages.append([])
        if len(stages) != len(STRIDES):
            raise InputError(f"A {type(self.body).__name__} of timm is not divided into stages.")
        return stages


def no_pyramid(name: str, reason: str) -> str:
    """The message for a network without four levels."""
    return (
        f"model.name={name} gives no maps at strides {list(STRIDES)}: {reason} Choose a network "
        "with four levels, for example model.name=resnet50 or model.name=pvt_small."
    )


def create_timm(
    name: str, num_classes: int, features: bool, pretrained: bool, **options: Any
) -> Any:
    """Build timm's network of this name, see `pvt_bench.backbones.create`."""
    if not timm.is_model(name):
        known = [*VARIANTS, *timm.list_models()]
        raise InputError(
            f"model.name={name} is unknown to pvt-bench and to timm. {suggest(name, known)} "
            "Type for example model.name=pvt_small or model.name=resnet50."
        )
    if features:
        return TimmPyramid(name, pretrained, **options)
    network = build(name, num_classes=num_classes, pretrained=pretrained, **options)
    network.mean, network.std = normalisation(network)
    return network


def report_pretrained(network: nn.Module, name: str) -> LoadReport:
    """What timm has loaded while it built: all but a head for another number of classes."""
    state = network.state_dict()
    config = getattr(network, "pretrained_cfg", None)
    drawn = config is not None and config["num_classes"] != getattr(network, "num_classes", None)
    heads = head_prefixes(network) if drawn else ()
    loaded = [tensor for tensor in state if not tensor.startswith(heads)]
    return LoadReport(
        f"timm's weights of {name}",
        loaded=loaded,
        missing=[tensor for tensor in state if tensor.startswith(heads)],
        parameters=sum(state[tensor].numel() for tensor in loaded),
        total=sum(tensor.numel() for tensor in state.values()),
    )


def suggest(name: str, known: list[str]) -> str:
    """The nearest names; timm's list is far too long to be printed when there are none."""
    sentence = nearest(name, known)
    return sentence if sentence.startswith("Did") else "timm.list_models() lists timm's names."


def build(name: str, **options: Any) -> Any:
    """Build by timm and turn what a user can mend into an InputError."""
    family = next((more for prefix, more in OPTIONS.items() if name.startswith(prefix)), {})
    try:
        return timm.create_model(name, **{**family, **options})
    except TypeError as error:
        unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unexpected is None:
            raise
        raise InputError(unknown_option(name, unexpected[1])) from error
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        if not options.get("pretrained"):
            raise
        raise InputError(
            f"timm's weights of {name} cannot be downloaded ({error}). Expected a connection to "
            "huggingface.co or a filled cache there (HF_HOME); or type model.weights=PATH of a "
            "state dict in timm's names."
        ) from error


def unknown_option(name: str, option: str) -> str:
    """The message for an option that the network's class does not have."""
    parameters = inspect.signature(type(timm.create_model(name))).parameters
    return f"model.{option} is no option of {name}. {nearest(option, parameters)}"


def normalisation(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that the network's weights were trained with, a channel."""
    config = timm.data.resolve_data_config({}, model=network)
    return tuple(config["mean"]), tuple(config["std"])


def register(name: str) -> Callable[..., nn.Module]:
    """Give timm a function that builds one of our variants."""

    def build_variant(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        features_only: bool = False,
        **options: Any,
    ) -> nn.Module:
        network = PyramidVisionTransformer(**{**VARIANTS[name], **options}, features=features_only)
        if pretrained:
            load_weights(network, "imagenet", name)
        return network

    build_variant.__name__ = build_variant.__qualname__ = name
    return timm.models.register_model(build_variant)


for variant in VARIANTS:
    register(variant)
