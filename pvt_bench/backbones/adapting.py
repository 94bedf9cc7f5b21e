"""What of a PVT's weights may differ from the file's: the grid of positions, the reduction."""

import re
from collections import defaultdict
from collections.abc import Mapping
from math import isqrt

from torch import Tensor
from torch.nn import functional as F

from pvt_bench.backbones.pvt import to_maps, to_tokens


def changed_reductions(
    target: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Prefixes of the reductions in stages whose ratio in the file is another than here."""
    stages: dict[str, list[str]] = defaultdict(list)
    for name in target:
        if found := re.fullmatch(r"(stages\.\d)\.blocks\.\d+\.attn\.q\.weight", name):
            stages[found[1]].append(name.removesuffix("q.weight"))
    changed = []
    for attentions in stages.values():
        here, there = ({ratio(names, each) for each in attentions} for names in (target, state))
        # A ratio that varies within a stage is a damaged file, not another ratio.
        if len(there) == 1 and here != there:
            changed += [f"{each}{part}." for each in attentions for part in ("sr", "norm")]
    return tuple(changed)


def ratio(tensors: Mapping[str, Tensor], attention: str) -> int:
    """The reduction ratio of one attention, 1 if it has no reduction."""
    weight = tensors.get(f"{attention}sr.weight")
    return 1 if weight is None or weight.ndim != 4 else weight.shape[-1]


def resize_positions(value: Tensor, like: Tensor) -> Tensor | None:
    """Resize position embeddings (1, n^2, C) to (1, m^2, C), or None if these are no grids."""
    if value.ndim != 3 or (value.shape[0], value.shape[2]) != (like.shape[0], like.shape[2]):
        return None
    before, after = isqrt(value.shape[1]), isqrt(like.shape[1])
    if before**2 != value.shape[1] or after**2 != like.shape[1] or not before:
        return None
    maps = to_maps(value.float(), (before, before))
    return to_tokens(F.interpolate(maps, size=(after, after), mode="bilinear"))
