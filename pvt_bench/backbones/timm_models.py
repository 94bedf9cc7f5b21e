"""timm's side: its networks as our backbones, and ours under timm's names.

After `import pvt_bench.backbones.timm_models`, `timm.create_model("pvt_small")` builds ours. The
package itself does not import this module before it must: importing timm takes seconds.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from pvt_bench.backbones import global_context  # noqa: F401, registers its network with timm
from pvt_bench.backbones.checks import explain_sizes, four, unknown_option
from pvt_bench.backbones.freezing import Freezable, Part, divide
from pvt_bench.backbones.pvt import VARIANTS, PyramidVisionTransformer
from pvt_bench.backbones.pyramid import STRIDES, PlainPyramid, check_pyramid
from pvt_bench.backbones.weights import load_weights
from pvt_bench.errors import InputError, nearest

# timm's modules of plain vision transformers.
PLAIN = ("deit", "vision_transformer")
# What the networks of a module must be told to take images of other sizes than their own.
ANY_SIZE: dict[str, dict[str, Any]] = {
    **{module: {"dynamic_img_size": True} for module in PLAIN},
    "swin_transformer": {"strict_img_size": False},
}
# Options of PVTv2 that timm does not check.
STAGE_OPTIONS = {
    "depths": "[3,4,6,3]",
    "embed_dims": "[64,128,320,512]",
    "num_heads": "[1,2,5,8]",
    "mlp_ratios": "[8,8,4,4]",
    "sr_ratios": "[8,4,2,1]",
}
# What `create` decides, and what timm itself loads, is no option of a network.
RESERVED = {
    *inspect.signature(timm.create_model).parameters,
    *inspect.signature(timm.models.build_model_with_cfg).parameters,
    *("drop_path_rate", "features_only", "feature_cls", "out_indices", "num_classes"),
    *("device", "dtype", "args"),
}
# What timm raises for values that define no network, and for networks without maps.
VALUE_ERRORS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,  # and NotImplementedError
    TypeError,
    ValueError,
    ZeroDivisionError,
)


class TimmPyramid(Freezable):
    """The maps of a timm network at strides 4, 8, 16 and 32.

    Raises:
        InputError: the network has no such maps.
    """

    def __init__(self, name: str, timm_name: str, **options: Any) -> None:
        super().__init__()
        self.body = build(name, timm_name, features_only=True, **options)
        reductions = self.body.feature_info.reduction()
        if not set(STRIDES) <= set(reductions):
            raise InputError(no_pyramid(name, f"its maps have strides {reductions}"))
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

    def stage_modules(self) -> list[list[Part]]:
        """The body's modules up to each of the four maps."""
        # timm's wrapper around a whole network keeps it in `model`.
        network = getattr(self.body, "model", self.body)
        return divide(network, [self.body.feature_info.module_name(i) for i in self.levels])


def create_timm(
    name: str, base: str | None, num_classes: int, features: bool, **options: Any
) -> Any:
    """Build timm's network `base`, by default `name`; see `pvt_bench.backbones.create`.

    Of the options, which are those of the network's class in timm, these are set in `conf/model/`.

    Args:
        drop_path: probability of dropping the last residual; it grows linearly from 0.
        drop_rate: dropout in front of the classifier.
        pyramid: how a plain transformer gives four maps: `simple` (ViTDet) or `interpolated` (PVT).
        patch_size: side of a patch in pixels.
        embed_dim: width of the tokens.
        depth: encoder layers.
        num_heads: attention heads per layer.
        mlp_ratio: hidden width of the feed-forward parts over `embed_dim`.
        qkv_bias: whether queries, keys and values have biases.
        growth_rate: channels that a layer of DenseNet appends.
        depths: layers of each of the four stages.
        linear: pool keys and values to 7 x 7 instead of reducing them by `sr_ratios`.
        sr_ratios: factor by which keys and values are reduced on each side, by stage.
    """
    timm_name = base or name
    if not timm.is_model(timm_name):
        key = "base" if base else "name"
        raise InputError(
            f"model.{key}={timm_name} is unknown to pvt-bench and to timm. {suggest(timm_name)} "
            "Use for example model.name=pvt_small or model.name=resnet50."
        )
    if reserved := sorted(options.keys() & RESERVED):
        raise InputError(unknown_option(name, reserved[0], known_options(timm_name)))
    # timm drops options that are None before it looks at their names.
    unset = {option for option, value in options.items() if value is None}
    if unset and (unknown := sorted(unset - known_options(timm_name))):
        raise InputError(unknown_option(name, unknown[0], known_options(timm_name)))
    plain = module_of(timm_name) in PLAIN
    # A classifier has no use for this option, but its YAML stands for both forms.
    pyramid = check_pyramid(options.pop("pyramid", "simple")) if plain else ""
    if not features:
        network = build(name, timm_name, num_classes=num_classes, **options)
        network.mean, network.std = normalisation(network)
        return network
    if plain:
        body = build(name, timm_name, num_classes=0, **options)
        return PlainPyramid(name, body, pyramid, *normalisation(body))
    return TimmPyramid(name, timm_name, **options)


def module_of(timm_name: str) -> str:
    """The module of timm.models that builds a network."""
    return timm.model_entrypoint(timm_name).__module__.rpartition(".")[2]


def build(name: str, timm_name: str, **options: Any) -> Any:
    """Build by timm and turn what a user can mend into an InputError."""
    if module_of(timm_name) == "pvt_v2":
        for option in options.keys() & STAGE_OPTIONS.keys():
            four(option, options[option], STAGE_OPTIONS[option])
    given = {{"drop_path": "drop_path_rate"}.get(key, key): each for key, each in options.items()}
    try:
        network = timm.create_model(timm_name, **ANY_SIZE.get(module_of(timm_name), {}), **given)
    except VALUE_ERRORS as error:
        raise InputError(why_not(name, timm_name, options, error)) from error
    explain_sizes(network, name)
    return network


def why_not(name: str, timm_name: str, options: Mapping[str, Any], error: Exception) -> str:
    """The message for a network that timm did not build."""
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and unexpected:
        option = "drop_path" if unexpected[1] == "drop_path_rate" else unexpected[1]
        return unknown_option(name, option, known_options(timm_name))
    if options.get("features_only"):
        classifier = {key: value for key, value in options.items() if key != "features_only"}
        with torch.device("meta"):
            build(name, timm_name, **classifier)  # raises where the options are to blame
        return no_pyramid(name, f"timm says: {error}")
    typed = ", ".join(
        f"model.{key}={value}" for key, value in options.items() if key != "num_classes"
    )
    return f"timm builds no {name} with {typed} ({type(error).__name__}: {error})."


def no_pyramid(name: str, reason: str) -> str:
    """The message for a network without four levels."""
    return (
        f"model.name={name} is a classifier and gives no maps at strides {list(STRIDES)}: "
        f"{reason}. Choose a network with a pyramid: the PVTs and PVTv2s, ResNets and the other "
        "CNNs, plain ViTs and DeiTs; for example model=resnet50 or model=pvt_small."
    )


def known_options(timm_name: str) -> set[str]:
    """The options of a network's class, under the names that they have here."""
    with torch.device("meta"):
        network = timm.create_model(timm_name)
    # A class that passes **kwargs on has its parent's options as well.
    known = {
        "drop_path" if parameter == "drop_path_rate" else parameter
        for each in type(network).__mro__
        if each.__module__.startswith("timm.")
        for parameter in inspect.signature(each).parameters
    }
    return (known | {"pyramid"} if module_of(timm_name) in PLAIN else known) - RESERVED


def suggest(timm_name: str) -> str:
    """The nearest names; timm's list is far too long to be printed when there are none."""
    sentence = nearest(timm_name, [*VARIANTS, *timm.list_models()])
    return sentence if sentence.startswith("Did") else "timm.list_models() lists timm's names."


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
        variant = partial(PyramidVisionTransformer, **{**VARIANTS[name], **options})
        network = variant(features=features_only)
        if pretrained:
            other_form = partial(variant, features=not features_only)
            load_weights(network, "imagenet", name, counterpart=other_form)
        return network

    build_variant.__name__ = build_variant.__qualname__ = name
    return timm.models.register_model(build_variant)


for variant in VARIANTS:
    register(variant)
