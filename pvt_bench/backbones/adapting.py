"""What of the weights may differ from the file's: the grid of positions, the reduction ratio."""

import re
from collections import defaultdict
from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from pvt_bench.backbones.naming import plain_name
from pvt_bench.backbones.pvt import to_maps, to_tokens


def changed_reductions(
    target: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Prefixes of the reductions in stages whose ratio in the file is another than here.

    For PVT and PVTv2, classifier and pyramid alike: the prefixes are of plain names. The linear
    attention of PVTv2 (arXiv 2106.13797, section 3.2) has no ratio, and is not taken for one.
    """
    here = {plain_name(name): tensor for name, tensor in target.items()}
    there = {plain_name(name): tensor for name, tensor in state.items()}
    stages: dict[str, list[str]] = defaultdict(list)
    for name in here:
        if found := re.fullmatch(r"(stages_\d)_blocks_\d+_attn_q_weight", name):
            stages[found[1]].append(name.removesuffix("q_weight"))
    changed = []
    for attentions in stages.values():
        ours, theirs = ({ratio(names, each) for each in attentions} for names in (here, there))
        # A ratio that varies within a stage is a damaged file, not another ratio.
        if len(theirs) == 1 and ours != theirs and None not in ours | theirs:
            changed += [f"{each}{part}_" for each in attentions for part in ("sr", "norm")]
    return tuple(changed)


def ratio(tensors: Mapping[str, Tensor], attention: str) -> int | None:
    """The reduction ratio of one attention, 1 if it has no reduction, None if it is linear."""
    weight = tensors.get(f"{attention}sr_weight")
    if weight is None or weight.ndim != 4:
        return 1
    return weight.shape[-1] if weight.shape[-1] > 1 else None


def resize_positions(value: Tensor, like: Tensor) -> Tensor | None:
    """Resize position embeddings (1, p + n^2, C) to (1, p + m^2, C), or None if these are no grids.

    The p tokens in front, a class token and one of distillation, have no place and stay. Grids
    alone are a PVT's and resized bilinearly, as in its released detectors; others bicubically
    with antialiasing, as timm does.
    """
    if value.ndim != 3 or (value.shape[0], value.shape[2]) != (like.shape[0], like.shape[2]):
        return None
    for front in range(3):
        before, after = (isqrt(max(0, each.shape[1] - front)) for each in (value, like))
        if (before**2 + front, after**2 + front) == (value.shape[1], like.shape[1]) and before:
            break
    else:
        return None
    maps = to_maps(value[:, front:].float(), (before, before))
    mode = "bicubic" if front else "bilinear"
    maps = F.interpolate(maps, size=(after, after), mode=mode, antialias=front > 0)
    return torch.cat([value[:, :front].float(), to_tokens(maps)], dim=1)
