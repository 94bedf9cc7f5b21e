"""Is what the user asked for a network at all, and does it take images of that size?"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from pvt_bench.errors import InputError, nearest

ATTENTIONS = ("fused", "plain")
STAGES = 4

# What the layers of a library raise where an image is too small, or of a wrong size.
SIZE_ERRORS = (RuntimeError, AssertionError, ValueError)
# Sides in pixels among which one that a network takes is looked for.
SIDES = range(32, 641, 32)


def is_positive(value: object) -> bool:
    """Whether a value is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_counts(**counts: tuple[object, int]) -> None:
    """Refuse values that are no whole numbers above zero; each comes with an example."""
    for name, (value, example) in counts.items():
        if not is_positive(value):
            raise InputError(
                f"model.{name}={value!r} cannot be used: expected a whole number above 0, for "
                f"example model.{name}={example}."
            )


def four(name: str, values: object, example: str) -> list[int]:
    """Read one positive whole number a stage."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        numbers = list(values)
        if len(numbers) == STAGES and all(map(is_positive, numbers)):
            return numbers
    raise InputError(
        f"model.{name}={values} cannot be used: expected {STAGES} whole numbers above 0, one a "
        f"stage, for example model.{name}={example}."
    )


def check_heads(channels: list[int], heads: list[int]) -> None:
    """Refuse heads that do not divide the channels of their stage."""
    for stage, (width, count) in enumerate(zip(channels, heads, strict=True), start=1):
        if width % count:
            raise InputError(
                f"model.heads={heads} cannot be used: {count} heads do not divide the {width} "
                f"channels of stage {stage} (model.channels={channels}). Choose divisors, for "
                "example model.heads=[1,2,5,8] for model.channels=[64,128,320,512]."
            )


def check_drop_path(drop_path: object) -> None:
    """Refuse a probability of stochastic depth that is none."""
    if isinstance(drop_path, bool) or not isinstance(drop_path, int | float):
        raise InputError(f"model.drop_path={drop_path!r} is no number: use model.drop_path=0.1.")
    if not 0 <= drop_path < 1:
        raise InputError(
            f"model.drop_path={drop_path} cannot be used: expected a probability from 0 up to, "
            "but not, 1, for example model.drop_path=0.1."
        )


def unknown_option(name: str, option: str, known: Iterable[str]) -> str:
    """The message for an option that a network does not have."""
    known = sorted(known)
    what = f"model.{option} is no option of {name}."
    if not known:
        return f"{what} It has none."
    near = nearest(option, known)
    # Where none is near, it names all.
    everything = f" Its options: {', '.join(known)}." if near.startswith("Did") else ""
    return f"{what} {near}{everything}"


def check_scalars(
    drop_path: float, attention: str, num_classes: int, in_chans: int, img_size: int, stride: int
) -> None:
    """Refuse single values that define no network; `stride` is the last stage's."""
    check_drop_path(drop_path)
    if attention not in ATTENTIONS:
        raise InputError(
            f"model.attention={attention} is unknown. {nearest(str(attention), ATTENTIONS)} "
            "Use model.attention=fused."
        )
    check_counts(num_classes=(num_classes, 1000), in_chans=(in_chans, 3))
    if not is_positive(img_size) or img_size < stride:
        raise InputError(
            f"model.img_size={img_size!r} cannot be used: expected a whole number of pixels, at "
            f"least the product of model.patch_sizes, {stride}; for example model.img_size=224."
        )


def explain_sizes(network: Any, name: str) -> None:
    """Let a network of a library refuse images of a size that it cannot take by an InputError.

    It gets a subclass of its own class: a module around it would rename all its tensors, and a
    method on the instance would keep it in memory as a cycle of references.
    """
    own: Any = type(network)
    network.shown_name = name
    network.__class__ = explaining(own)


@cache
def explaining(network: Any) -> Any:
    """The subclass of a class of networks that explains itself."""
    return type(network.__name__, (network,), {"forward": forward_or_explain})


def forward_or_explain(network: Any, images: Tensor) -> Any:
    """The network's own forward pass; where it fails, find out whether the size is to blame."""
    own: Any = type(network).__mro__[1]
    try:
        return own.forward(network, images)
    except SIZE_ERRORS as error:
        # On the meta device nothing but shapes can fail.
        twin = meta_twin(network)
        twin.__class__ = own
        height, width = images.shape[-2:]
        if takes(twin, images, height, width):
            raise
        side = nearest_side(twin, images)
        expected = f" The nearest square that it takes is {side} x {side}." if side else ""
        what = "an image" if len(images) == 1 else f"{len(images)} images"
        raise InputError(
            f"{network.shown_name} cannot take {what} of {height} x {width} pixels "
            f"({str(error).rstrip('.')}).{expected}"
        ) from error


def meta_twin(network: Any) -> Any:
    """A copy of a network without numbers, on the meta device, for questions about shapes."""
    # Not functional_call: its way back leaves modules that are shared on the meta device.
    tensors = (*network.parameters(), *network.buffers())
    return deepcopy(network, {id(each): torch.empty_like(each, device="meta") for each in tensors})


def takes(twin: nn.Module, images: Tensor, height: int, width: int) -> bool:
    """Whether a network on the meta device takes as many images, but of `height` x `width`."""
    try:
        twin(torch.empty(*images.shape[:2], height, width, device="meta"))
    except SIZE_ERRORS:
        return False
    return True


def nearest_side(twin: nn.Module, images: Tensor) -> int | None:
    """The side of the smallest square above the images' that a network takes, or of one below."""
    longest = max(images.shape[-2:])
    sides = sorted(SIDES, key=lambda side: (side < longest, side))
    taken = next((side for side in sides if takes(twin, images, side, side)), None)
    if taken is None:
        return None
    # Not below the images' own: where sides are multiples of one, smaller ones fit, too.
    shortest = min(images.shape[-2:])
    refused = max(taken - SIDES.step, shortest if shortest < taken else 0)
    while taken - refused > 1:
        side = (taken + refused) // 2
        taken, refused = (side, refused) if takes(twin, images, side, side) else (taken, side)
    return taken
