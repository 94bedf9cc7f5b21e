"""Weights into networks: strict, all or nothing, and honest about what was loaded."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pvt_bench.backbones.files import load_state, read_state, save_weights
from pvt_bench.backbones.matching import LoadReport, check_numbers, compare, likely_cause, mismatch
from pvt_bench.backbones.naming import inside, translate, unwrap
from pvt_bench.backbones.sources import fetch, published_network
from pvt_bench.errors import InputError

__all__ = ["LoadReport", "load_network", "load_state", "load_weights", "save_weights"]


def load_weights(
    backbone: nn.Module,
    source: str | Path,
    name: str,
    base: str | None = None,
    counterpart: Callable[[], nn.Module] | None = None,
) -> LoadReport:
    """Load a backbone from a file, or its published ImageNet weights.

    A file has the network's own names, timm's, torchvision's or the released PVT's. Every tensor
    of the backbone must be there with its shape, and nothing may be left over, except: a head for
    another number of classes; what only one of classifier and pyramid has, as a whole; auxiliary
    heads; position embeddings of another grid, which are resized; and the reduction of another
    ratio, which stays as initialised.

    Args:
        backbone: freshly built; changed only once the whole file is known to fit.
        source: a path, or `imagenet`.
        name: the backbone's name, for messages.
        base: the name under which its ImageNet weights are published, if it is another.
        counterpart: builds the pyramid of a classifier, the classifier of a pyramid; without it
            a file must be of the backbone's own form.

    Raises:
        InputError: an unusable file, one of another network, one with NaN or infinity in what is
            used, or no published weights.
    """
    left_out: list[str] = []
    if str(source) == "imagenet":
        check_published(backbone, name, base or name, counterpart)
        origin, state = fetch(base or name)
    else:
        file = read_state(source)
        left_out = file.left_out
        prefix, state = unwrap(backbone, file.tensors)
        origin = f"{file.place}, {prefix}*" if prefix else file.place
    state = translate(backbone, state)
    match = compare(backbone, state, counterpart)
    if match.fault:
        cause = likely_cause(state, name)
        raise InputError(f"{origin} does not fit {name}: {match.fault}{cause}")
    check_numbers(origin, match.values)
    fill(backbone, match.values)
    return replace(match.report, source=origin, left_out=left_out)


def load_network(network: nn.Module, path: str | Path) -> LoadReport:
    """Load a whole network, every tensor of it; names as in `network.state_dict()`.

    A Lightning checkpoint has them behind the prefix `network.`, and what else it holds is left.

    Raises:
        InputError: an unusable file, one of another network, or one with NaN or infinity.
    """
    file = read_state(path)
    state = inside(file.tensors, "network.")
    target = network.state_dict()
    absent = [name for name in target if name not in state]
    foreign = [name for name in state if name not in target]
    misshaped = [name for name in target.keys() & state if target[name].shape != state[name].shape]
    if absent or foreign or misshaped:
        raise InputError(
            f"{file.place} is a checkpoint of another model: "
            + mismatch(target, state, absent, foreign, sorted(misshaped))
            + " Choose the model and task that it was trained with, or another file."
        )
    check_numbers(file.place, state)
    fill(network, state)
    numbers = sum(tensor.numel() for tensor in target.values())
    return LoadReport(
        file.place,
        loaded=list(target),
        left_out=file.left_out,
        parameters=numbers,
        total=numbers,
    )


def fill(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values of matching shape into the network's tensors."""
    target = network.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            target[name].copy_(value)


def check_published(
    backbone: nn.Module, name: str, base: str, counterpart: Callable[[], nn.Module] | None
) -> None:
    """Refuse options that make a network other than the one that weights are published for."""
    published = published_network(base)
    if published is None:
        return
    fault = compare(backbone, translate(backbone, published.state_dict()), counterpart).fault
    # Attention heads share the shapes of their tensors, so that these would fit.
    if not fault and any(
        here != there for here, there in zip(heads(backbone), heads(published), strict=False)
    ):
        fault = f"it has {heads(published)} attention heads in its layers."
    if fault:
        raise InputError(
            f"There are no published ImageNet weights of {name} with these options. Those of "
            f"{base} belong to another network: {fault} Use its options as published, or "
            "model.weights=PATH for a file of your own."
        )


def heads(network: nn.Module) -> list[int]:
    """Numbers of attention heads, layer after layer."""
    found = (
        getattr(module, "num_heads", getattr(module, "heads", None)) for module in network.modules()
    )
    return [number for number in found if isinstance(number, int)]
