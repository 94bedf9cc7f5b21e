"""How a file's tensors fit a backbone's: what is copied, what may differ, what is a fault."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from pvt_bench.backbones.adapting import changed_reductions, resize_positions
from pvt_bench.backbones.naming import AUXILIARY, head_prefixes, plain_name
from pvt_bench.backbones.pvt import STAGES, VARIANTS
from pvt_bench.errors import InputError

# Depths, first width and linear attention of PVTv2 (arXiv 2106.13797, Table 1), to know files by.
Look = tuple[tuple[int, ...], int, bool]
PVT_V2: dict[str, Look] = {
    "pvt_v2_b0": ((2, 2, 2, 2), 32, False),
    "pvt_v2_b1": ((2, 2, 2, 2), 64, False),
    "pvt_v2_b2": ((3, 4, 6, 3), 64, False),
    "pvt_v2_b2_li": ((3, 4, 6, 3), 64, True),
    "pvt_v2_b3": ((3, 4, 18, 3), 64, False),
    "pvt_v2_b4": ((3, 8, 27, 3), 64, False),
    "pvt_v2_b5": ((3, 6, 40, 3), 64, False),
}


@dataclass(frozen=True)
class LoadReport:
    """What happened to every tensor of a network and of a file, by name.

    Attributes:
        source: where the weights come from.
        loaded: the network's tensors with the file's values; `resized` ones included.
        missing: the network's tensors that keep the values that they had.
        unexpected: tensors of the file that the network has no use for.
        left_out: what lies among the file's tensors and is none.
        resized: position embeddings resized to another grid.
        reinitialised: tensors that stay as initialised, because the reduction ratio differs.
        parameters: numbers loaded.
        total: numbers in the network.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
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
            "left out, no tensors": self.left_out,
        }
        lines += [f"  {what}: {some(names)}" for what, names in rest.items() if names]
        return "\n".join(lines)


@dataclass(frozen=True)
class Match:
    """How a file's tensors, by the backbone's names, fit the backbone's; nothing is changed yet.

    Attributes:
        values: what to copy.
        report: what would happen.
        fault: what does not fit, empty if all does.
    """

    values: dict[str, Tensor]
    report: LoadReport
    fault: str


def some(names: Iterable[str], most: int = 6) -> str:
    """The first names and the number of the others."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def compare(
    backbone: nn.Module,
    state: Mapping[str, Tensor],
    counterpart: Callable[[], nn.Module] | None,
) -> Match:
    """Decide about every tensor of backbone and file, and touch nothing."""
    target = backbone.state_dict()
    here, elsewhere = own_parts(backbone, counterpart)
    other_form = not any(plain_name(name) in here for name in state)
    changed = changed_reductions(target, state)
    values: dict[str, Tensor] = {}
    report = LoadReport("", total=sum(tensor.numel() for tensor in target.values()))
    absent: list[str] = []
    misshaped: list[str] = []
    for own, tensor in target.items():
        value = state.get(own)
        if plain_name(own).startswith(changed):
            report.reinitialised.append(own)
        elif value is None:
            # A counter that older files lack and nothing here reads.
            counter = own.endswith("num_batches_tracked")
            known = counter or (other_form and plain_name(own) in here)
            (report.missing if known else absent).append(own)
        elif value.shape == tensor.shape:
            values[own] = value
        elif own.endswith("pos_embed") and (resized := resize_positions(value, tensor)) is not None:
            values[own] = resized
            report.resized.append(own)
        elif own.startswith(head_prefixes(backbone)):
            report.missing.append(own)
        else:
            misshaped.append(own)
    foreign: list[str] = []
    for other in sorted(state.keys() - target.keys()):
        known = plain_name(other) in elsewhere or plain_name(other).startswith(changed)
        known = known or other.startswith(AUXILIARY)
        (report.unexpected if known else foreign).append(other)
    report.loaded.extend(values)
    faulty = absent or misshaped or foreign
    fault = mismatch(target, state, absent, foreign, misshaped) if faulty else ""
    counts = [value.numel() for value in values.values()]
    return Match(values, replace(report, parameters=sum(counts)), fault)


def check_numbers(source: str, values: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers.

    Raises:
        InputError: a tensor with NaN or infinity, or without values.
    """
    hollow = [name for name, value in values.items() if value.is_meta]
    if hollow:
        raise InputError(
            f"{source} has no values, only shapes (device meta), for {some(hollow)}. Use the path "
            "of a file that was saved from a CPU or a GPU."
        )
    broken = [name for name, value in values.items() if not value.float().isfinite().all()]
    if broken:
        raise InputError(
            f"{source} has NaN or infinity in {some(broken)}: expected finite numbers. Use the "
            "path of a checkpoint from before the training diverged, or of another file."
        )


def own_parts(
    backbone: nn.Module, counterpart: Callable[[], nn.Module] | None
) -> tuple[set[str], set[str]]:
    """Plain names of what only the backbone has, and of what only its counterpart has."""
    if counterpart is None:
        return set(), set()
    try:
        with torch.device("meta"):
            other = counterpart()
    except InputError:  # Not every classifier has a pyramid.
        return set(), set()
    here, there = ({plain_name(key) for key in each.state_dict()} for each in (backbone, other))
    return here - there, there - here


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
    """Name the PVT whose depths and width the file has."""
    tensors = {plain_name(key): tensor for key, tensor in state.items()}
    blocks: dict[int, set[int]] = defaultdict(set)
    for key in tensors:
        if found := re.match(r"stages_(\d)_blocks_(\d+)_", key):
            blocks[int(found[1])].add(int(found[2]))
    depths = tuple(len(blocks[stage]) for stage in range(STAGES))
    second = any(key.endswith("mlp_dwconv_weight") for key in tensors)
    embedding = tensors.get(f"{'' if second else 'stages_0_'}patch_embed_proj_weight")
    reduction = tensors.get("stages_0_blocks_0_attn_sr_weight")
    linear = second and reduction is not None and reduction.shape[-1] == 1
    for variant, look in (PVT_V2 if second else first_version()).items():
        if embedding is not None and look == (depths, len(embedding), linear) and variant != name:
            return f" It looks like a checkpoint of {variant}: use model={variant}?"
    return " It is a checkpoint of another network, or of other model options."


def first_version() -> dict[str, Look]:
    """The same of the PVTs of arXiv 2102.12122."""
    return {
        name: (tuple(options["depths"]), options.get("channels", (64,))[0], False)
        for name, options in VARIANTS.items()
    }
