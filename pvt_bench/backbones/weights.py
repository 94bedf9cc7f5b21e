"""Weights into networks: strict, all or nothing, and honest about what was loaded."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pvt_bench.backbones.adapting import changed_reductions, resize_positions
from pvt_bench.backbones.files import load_state, save_weights
from pvt_bench.backbones.naming import head_prefixes, inside, is_part, translate, unwrap
from pvt_bench.backbones.pvt import STAGES, VARIANTS
from pvt_bench.errors import InputError

__all__ = ["LoadReport", "load_network", "load_state", "load_weights", "save_weights"]

RELEASE = "https://github.com/whai362/PVT/releases/download/v2"
IMAGENET = {name: f"{RELEASE}/{name}.pth" for name in VARIANTS}


@dataclass(frozen=True)
class LoadReport:
    """What happened to every tensor of a network and of a file, by name.

    Attributes:
        source: where the weights come from.
        loaded: the network's tensors with the file's values; `resized` ones included.
        missing: the network's tensors that keep the values that they had.
        unexpected: tensors of the file that the network has no use for.
        resized: position embeddings resized to another grid.
        reinitialised: tensors drawn anew, because the reduction ratio differs.
        parameters: numbers loaded.
        total: numbers in the network.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    reinitialised: list[str] = field(default_factory=list)
    parameters: int = 0
    total: int = 0

    def __str__(self) -> str:
        count = len(self.loaded) + len(self.missing) + len(self.reinitialised)
        lines = [
            f"{self.source}: loaded {len(self.loaded)} of {count} tensors "
            f"({self.parameters / 1e6:.2f} of {self.total / 1e6:.2f} M numbers)"
        ]
        rest = {
            "not loaded, as initialised": self.missing,
            "initialised anew, another reduction ratio": self.reinitialised,
            "resized to this grid": self.resized,
            "in the file, not used": self.unexpected,
        }
        lines += [f"  {what}: {some(names)}" for what, names in rest.items() if names]
        return "\n".join(lines)


def some(names: Iterable[str], most: int = 6) -> str:
    """The first names and the number of the others."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def load_weights(backbone: nn.Module, source: str | Path, name: str) -> LoadReport:
    """Load a backbone from a file, or the published ImageNet weights of a PVT.

    A PVT reads the released names and ours, another network timm's. Every tensor of the backbone
    must be there with its shape, and nothing may be left over, except: a head for another number
    of classes, what a pyramid lacks (head, class token, final norm), position embeddings of
    another grid, which are resized, and the reduction of another ratio, which is drawn anew.

    Args:
        backbone: the network, changed only once the whole file is known to fit.
        source: a path, or `imagenet`.
        name: the backbone's name, for messages and the address of its weights.

    Raises:
        InputError: an unusable file, or one of another network.
    """
    path = download(name) if str(source) == "imagenet" else Path(source)
    state = translate(backbone, unwrap(load_state(path)))
    values, report = match(backbone, state, path, name)
    for prefix in sorted({re.sub(r"\.\w+$", "", tensor) for tensor in report.reinitialised}):
        backbone.get_submodule(prefix).reset_parameters()  # type: ignore[operator]
    fill(backbone, values)
    return report


def load_network(network: nn.Module, path: str | Path) -> LoadReport:
    """Load a whole network, every tensor of it; names as in `network.state_dict()`.

    A Lightning checkpoint has them behind the prefix `network.`, and what else it holds is left.

    Raises:
        InputError: an unusable file, or one of another network.
    """
    state = inside(load_state(path), "network.")
    target = network.state_dict()
    absent = [name for name in target if name not in state]
    foreign = [name for name in state if name not in target]
    misshaped = [name for name in target.keys() & state if target[name].shape != state[name].shape]
    if absent or foreign or misshaped:
        raise InputError(
            f"{path} is a checkpoint of another model: "
            + mismatch(target, state, absent, foreign, sorted(misshaped))
            + " Choose the model and task that it was trained with, or another file."
        )
    fill(network, state)
    numbers = sum(tensor.numel() for tensor in target.values())
    return LoadReport(str(path), loaded=list(target), parameters=numbers, total=numbers)


def fill(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values of matching shape into the network's tensors."""
    target = network.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            target[name].copy_(value)


def download(name: str) -> Path:
    """Return the published weights of a PVT, from torch.hub's cache or from the network."""
    if name not in IMAGENET:
        raise InputError(
            f"There is no address for ImageNet weights of {name}: expected one of "
            f"{', '.join(IMAGENET)}. Type model.weights=PATH for a file of your own."
        )
    address = IMAGENET[name]
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path))
        except OSError as error:
            raise InputError(
                f"The weights of {name} cannot be downloaded ({error}). Get {address} on a "
                f"machine that can, and put it at {path}; or type model.weights=PATH."
            ) from error
    return path


def match(
    backbone: nn.Module, state: dict[str, Tensor], path: Path, name: str
) -> tuple[dict[str, Tensor], LoadReport]:
    """Decide about every tensor of backbone and file, and touch nothing; the values to copy."""
    target = backbone.state_dict()
    changed = changed_reductions(target, state)
    values: dict[str, Tensor] = {}
    report = LoadReport(str(path), total=sum(tensor.numel() for tensor in target.values()))
    absent: list[str] = []
    misshaped: list[str] = []
    foreign: list[str] = []
    for own, tensor in target.items():
        value = state.get(own)
        if own.startswith(changed):
            report.reinitialised.append(own)
        elif value is None:
            # A counter that older files lack and nothing here reads.
            counter = own.endswith("num_batches_tracked")
            (report.missing if counter else absent).append(own)
        elif value.shape == tensor.shape:
            values[own] = value
        elif own.endswith("pos_embed") and (resized := resize_positions(value, tensor)) is not None:
            values[own] = resized
            report.resized.append(own)
        elif own.startswith(head_prefixes(backbone)):
            report.missing.append(own)
        else:
            misshaped.append(own)
    for other in state.keys() - target.keys():
        usable = not other.startswith(changed) and is_part(backbone, other)
        (foreign if usable else report.unexpected).append(other)
    if absent or misshaped or foreign:
        raise InputError(
            f"{path} does not fit {name}: "
            + mismatch(target, state, absent, sorted(foreign + report.unexpected), misshaped)
            + likely_cause(state, name)
        )
    report.unexpected.sort()
    report.loaded.extend(values)
    counts = {own: value.numel() for own, value in values.items()}
    return values, LoadReport(**{**vars(report), "parameters": sum(counts.values())})


def mismatch(
    target: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    absent: list[str],
    foreign: list[str],
    misshaped: list[str],
) -> str:
    """Say how much of a file fits, with examples of what does not."""
    fits = sum(own in state and state[own].shape == tensor.shape for own, tensor in target.items())
    parts = [f"{fits} of the network's {len(target)} tensors can be loaded from its {len(state)}."]
    if absent:
        parts.append(f"Missing in the file: {some(absent, 3)}.")
    if foreign:
        parts.append(f"Unknown to the network: {some(foreign, 3)}.")
    if misshaped:
        name = misshaped[0]
        parts.append(
            f"Of another shape: {some(misshaped, 3)} (the first {list(state[name].shape)} in the "
            f"file, {list(target[name].shape)} in the network)."
        )
    return " ".join(parts)


def likely_cause(state: Mapping[str, Tensor], name: str) -> str:
    """Name the variant whose depths the file has."""
    blocks: dict[int, set[int]] = defaultdict(set)
    for tensor in state:
        if found := re.match(r"stages\.(\d)\.blocks\.(\d+)\.", tensor):
            blocks[int(found[1])].add(int(found[2]))
    depths = tuple(len(blocks[stage]) for stage in range(STAGES))
    for variant, options in VARIANTS.items():
        if options["depths"] == depths and variant != name:
            return f" It looks like a checkpoint of {variant}: type model={variant}?"
    return " It is a checkpoint of another network, or of other model options."
