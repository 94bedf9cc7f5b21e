"""Backbones by name: ours first, every other from timm."""

import inspect
from typing import Any

from torch import nn

from pvt_bench.backbones.freezing import freeze
from pvt_bench.backbones.pvt import VARIANTS, PyramidVisionTransformer
from pvt_bench.backbones.weights import LoadReport, load_network, load_weights, save_weights
from pvt_bench.errors import InputError, nearest

__all__ = ["LoadReport", "create", "freeze", "load_network", "load_weights", "save_weights"]


def create(
    name: str,
    num_classes: int = 1000,
    features: bool = False,
    weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a backbone.

    Args:
        name: `pvt_tiny`, `pvt_small`, `pvt_medium`, `pvt_large`, or a name of timm.
        num_classes: length of the logits; without meaning where `features` is set.
        features: maps instead of logits.
        weights: None for random ones, `imagenet`, or the path of a file, see `load_weights`.
        options: what else defines the network, for example `sr_ratios=[8, 4, 2, 1]`.

    Returns:
        A classifier, images (B, 3, H, W) to logits (B, num_classes); with `features` a pyramid,
        images to a list of maps (B, C_i, H / s_i, W / s_i), with `.channels` and `.strides`. Both
        have `.mean` and `.std`, the normalisation of the input, and `.load_report`, which is None
        without weights.

    Raises:
        InputError: an unknown name or option, a value that defines no network, unusable weights.
    """
    if name in VARIANTS:
        check_options(name, options)
        options = {**VARIANTS[name], **options, "num_classes": num_classes, "features": features}
        return with_weights(PyramidVisionTransformer(**options), weights, name)

    # Here, because importing timm takes seconds.
    from pvt_bench.backbones.timm_models import create_timm, report_pretrained

    # timm brings its own weights while it builds, since it adapts them to the options.
    pretrained = weights == "imagenet"
    network = create_timm(name, num_classes, features, pretrained, **options)
    if not pretrained:
        return with_weights(network, weights, name)
    network.load_report = report_pretrained(network, name)
    return network


def with_weights(network: Any, weights: str | None, name: str) -> nn.Module:
    """Load weights if there are any, and leave the report on the network."""
    network.load_report = None if weights is None else load_weights(network, weights, name)
    return network


def check_options(name: str, options: dict[str, Any]) -> None:
    """Refuse an option that a PVT does not have."""
    known = set(inspect.signature(PyramidVisionTransformer).parameters)
    known -= {"num_classes", "features"}
    for option in options:
        if option not in known:
            raise InputError(
                f"model.{option} is no option of {name}. {nearest(option, known)} "
                f"Its options: {', '.join(sorted(known))}."
            )
