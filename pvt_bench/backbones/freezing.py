"""A backbone in stages, and which of them stay as they are."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pvt_bench.errors import InputError

# A position embedding or a class token belongs to a stage as much as a module does.
Part = nn.Module | nn.Parameter


class Freezable(nn.Module):
    """A backbone in stages, some of which may stay in evaluation mode while the rest trains."""

    def __init__(self) -> None:
        super().__init__()
        # A plain list, so that these modules are not registered a second time.
        self.kept_in_eval: list[nn.Module] = []

    @abstractmethod
    def stage_modules(self) -> Sequence[Sequence[Part]]:
        """The parts of each stage in order; the stem belongs to the first stage."""

    def train(self, mode: bool = True) -> Self:
        """Like `nn.Module.train`, but what `freeze` has fixed stays in evaluation mode."""
        super().train(mode)
        for module in self.kept_in_eval:
            module.eval()
        return self


def divide(network: nn.Module, ends: Sequence[str]) -> list[list[Part]]:
    """Divide a network into stages, each up to and with the submodule that an end names.

    ends: names in the order of the network's modules, with dots or underscores between modules
    within modules. What follows the last end belongs to the last stage.
    """
    flat = [end.replace(".", "_") for end in ends]
    stages: list[list[Part]] = [[]]

    def visit(module: nn.Module, prefix: str) -> None:
        stages[-1].extend(module.parameters(recurse=False))
        for name, child in module.named_children():
            path = prefix + name.replace(".", "_")
            if any(end.startswith(f"{path}_") for end in flat):
                visit(child, f"{path}_")
            else:
                stages[-1].append(child)
            if path in flat[:-1]:
                stages.append([])

    visit(network, "")
    if len(stages) != len(ends):
        raise InputError(f"A {type(network).__name__} is not divided into {len(ends)} stages.")
    return stages


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
        if not stages and not batch_norm:
            return
        raise InputError(
            f"A {type(backbone).__name__} has no stages to freeze: expected a backbone built "
            "with features=True, or a PVT."
        )
    # Not every network of timm is divided into stages, and none has to be when none is frozen.
    parts = backbone.stage_modules() if stages else []
    if isinstance(stages, bool) or not isinstance(stages, int) or not 0 <= stages <= len(parts):
        raise InputError(
            f"{stages!r} stages cannot be frozen: expected a whole number from 0 to "
            f"{len(parts)}, for example 1."
        )
    frozen = [part for stage in parts[:stages] for part in stage]
    for part in frozen:
        part.requires_grad_(False)
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    modules = [part for part in frozen if isinstance(part, nn.Module)]
    backbone.kept_in_eval = [*modules, *(norms if batch_norm else [])]
    backbone.train(backbone.training)
