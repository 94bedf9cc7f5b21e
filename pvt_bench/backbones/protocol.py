"""What the networks of the tasks need of a backbone."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

from torch import Tensor, nn

from pvt_bench.errors import InputError

NORMALISATION, PYRAMID = ("mean", "std"), ("channels", "strides")


class Backbone(Protocol):
    """Normalised images (B, 3, H, W) to logits, or of a pyramid to a list of maps, finest first.

    mean, std: normalisation of the input, per channel.
    channels, strides: of a pyramid's maps; classifiers need none.
    """

    mean: Sequence[float]
    std: Sequence[float]
    channels: Sequence[int]
    strides: Sequence[int]

    def __call__(self, images: Tensor) -> Any: ...


def as_backbone(module: nn.Module, pyramid: bool) -> Backbone:
    """Return the module as a backbone.

    Raises:
        InputError: it lacks an attribute that backbones have.
    """
    needed = NORMALISATION + (PYRAMID if pyramid else ())
    if missing := [f".{name}" for name in needed if not hasattr(module, name)]:
        raise InputError(
            f"The backbone {type(module).__name__} has no {' and no '.join(missing)}: expected "
            f"{', '.join(f'.{name}' for name in needed)}."
        )
    return cast(Backbone, module)
