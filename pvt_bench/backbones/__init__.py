"""Backbones by name: ours, timm's and torchvision's; and those of a user's own package."""

import inspect
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from torch import nn

from pvt_bench.backbones import lenet, mixed_link, pvt, t2t
from pvt_bench.backbones.checks import check_drop_path, unknown_option
from pvt_bench.backbones.freezing import freeze
from pvt_bench.backbones.weights import LoadReport, load_network, load_weights, save_weights
from pvt_bench.config.targets import find_target, signature_defaults
from pvt_bench.errors import InputError

__all__ = ["LoadReport", "create", "freeze", "load_network", "load_weights", "save_weights"]

# Our own networks: the class of each, and where it differs from the class's defaults.
OWN: dict[str, tuple[Any, dict[str, Any]]] = {
    name: (network, options)
    for network, variants in (
        (pvt.PyramidVisionTransformer, pvt.VARIANTS),
        (t2t.TokensToTokenViT, t2t.VARIANTS),
        (mixed_link.MixedLinkNetwork, mixed_link.VARIANTS),
        (lenet.LeNet5, lenet.VARIANTS),
    )
    for name, options in variants.items()
}


def create(
    name: str,
    num_classes: int = 1000,
    features: bool = False,
    weights: str | None = None,
    base: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a backbone.

    Args:
        name: name of the network: pvt-bench's own (`pvt_small`, `t2t_vit_t_14`, `mixed_link_105`,
            `lenet5`, ...), timm's, or `googlenet`.
        num_classes: length of the logits; ignored where `features` is set.
        features: maps instead of logits.
        weights: null for random weights, `imagenet` for the official ones, or the path of a file.
        base: network of timm that the other options turn into `name`, where timm has no `name`.
        options: what else defines the network, for example `sr_ratios=[8, 4, 2, 1]`. Stochastic
            depth is `drop_path` in every network that has it. `_target_` names a class or function
            that is called with the others, instead of looking `name` up.

    Returns:
        A classifier, images (B, 3, H, W) to logits (B, num_classes); with `features` a pyramid,
        images to a list of maps (B, C_i, H / s_i, W / s_i), with `.channels` and `.strides`. Both
        have `.mean` and `.std`, the normalisation of the input, and `.load_report`, which is None
        without weights. An image that is too small raises an InputError.

    Raises:
        InputError: an unknown name or option, a value that defines no network, a network that has
            no pyramid, unusable weights.
    """
    network: Any = build(name, num_classes, features, base, **options)
    network.load_report = None
    if weights is not None:
        counterpart = partial(build, name, num_classes, not features, base, **options)
        network.load_report = load_weights(network, weights, name, base, counterpart)
    return network


def default_options(name: str, base: str | None = None) -> dict[str, Any]:
    """The values that a network of ours has where its options are left out; empty for others."""
    if name not in OWN or base is not None:
        return {}
    network, variant = OWN[name]
    return signature_defaults(network) | variant


def builder_of(
    name: str, base: str | None = None, target: str | None = None
) -> Callable[..., nn.Module]:
    """What takes a network's options: a class or function of ours or of `_target_`, or a function
    that hands them to another library."""
    if target is not None:
        found: Callable[..., nn.Module] = find_target("model", target)
        return found
    if name in OWN and base is None:
        return OWN[name][0]
    if name == "googlenet":
        from pvt_bench.backbones.torchvision_models import create_googlenet

        return create_googlenet
    from pvt_bench.backbones.timm_models import create_timm

    return create_timm


def build(
    name: str, num_classes: int, features: bool, base: str | None = None, **options: Any
) -> nn.Module:
    """Build a backbone with random weights, see `create`."""
    if not isinstance(name, str) or name == "???":
        raise InputError(
            "Which network of timm? Use for example model.name=convnext_tiny; "
            "timm.list_models() lists the names."
        )
    if "drop_path" in options:
        check_drop_path(options["drop_path"])
    if "_target_" in options:
        network = find_target("model", options.pop("_target_"))
        return call(network, name, num_classes, features, **options)
    if name in OWN and base is None:
        network, variant = OWN[name]
        return call(network, name, num_classes, features, **variant | options)
    if name == "googlenet":
        # Here, as timm below, because importing these libraries takes seconds.
        from pvt_bench.backbones.torchvision_models import GOOGLENET_OPTIONS, create_googlenet

        check_options(name, options, GOOGLENET_OPTIONS)
        return create_googlenet(num_classes, features, **options)
    from pvt_bench.backbones.timm_models import create_timm

    return create_timm(name, base, num_classes, features, **options)


def call(
    network: Callable[..., Any], name: str, num_classes: int, features: bool, **options: Any
) -> nn.Module:
    """Build a network from its class or a function, see `create`."""
    parameters = inspect.signature(network).parameters
    known = set(parameters)
    if any(each.kind == each.VAR_KEYWORD for each in parameters.values()):
        known |= {"features", *options}
    if features and "features" not in known:
        raise InputError(
            f"model.name={name} is a classifier and has no pyramid. Choose for example "
            "model=pvt_small, model=mixed_link_105, model=resnet50 or model=vit_small_patch16."
        )
    check_options(name, options, known - {"num_classes", "features"})
    form = {"features": features} if "features" in known else {}
    return network(**options, **form, num_classes=num_classes)


def check_options(name: str, options: dict[str, Any], known: Collection[str]) -> None:
    """Refuse an option that a network does not have."""
    for option in options:
        if option not in known:
            raise InputError(unknown_option(name, option, known))
