"""Fixed parts of a backbone: the first stages, and the statistics of batch normalisation."""

from abc import abstractmethod
from typing import Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pvt_bench.errors import InputError


class Freezable(nn.Module):
    """A backbone in stages, some of which may stay in evaluation mode while the rest trains."""

    def __init__(self) -> None:
        super().__init__()
        # A plain list, so that these modules are not registered a second time.
        self.kept_in_eval: list[nn.Module] = []

    @abstractmethod
    def stage_modules(self) -> list[list[nn.Module]]:
        """The modules of each stage in order; the stem belongs to the first stage."""

    def train(self, mode: bool = True) -> Self:
        """Like `nn.Module.train`, but what `freeze` has fixed stays in evaluation mode."""
        super().train(mode)
        for module in self.kept_in_eval:
            module.eval()
        return self


def freeze(backbone: nn.Module, stages: int = 0, batch_norm: bool = False) -> None:
    """Freeze the stem and the first `stages` stages, and with `batch_norm` all statistics.

    Frozen stages take no gradient and stay in evaluation mode after later calls of `train()`.
    With `batch_norm` every batch normalisation keeps its running mean and variance; its scale
    and shift still train in the stages that are not frozen. It replaces an earlier freezing's
    choice of what stays in evaluation mode, and never makes a parameter trainable again.

    Raises:
        InputError: the backbone is not divided into stages, or has fewer than `stages`.
    """
    if not isinstance(backbone, Freezable):
        raise InputError(
            f"A {type(backbone).__name__} has no stages to freeze: expected a backbone built "
            "with features=True, or a PVT."
        )
    modules = backbone.stage_modules()
    if isinstance(stages, bool) or not isinstance(stages, int) or not 0 <= stages <= len(modules):
        raise InputError(
            f"{stages!r} stages cannot be frozen: expected a whole number from 0 to "
            f"{len(modules)}, for example 1."
        )
    frozen = [module for stage in modules[:stages] for module in stage]
    for module in frozen:
        module.requires_grad_(False)
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    backbone.kept_in_eval = [*frozen, *(norms if batch_norm else [])]
    backbone.train(backbone.training)
