"""What tensors are called: in published files, inside larger networks, in timm's pyramids."""

import re
from collections import Counter
from collections.abc import Iterable, Set
from math import isqrt

from torch import Tensor, nn

from pvt_bench.backbones.files import NESTED
from pvt_bench.backbones.pvt import STAGES, PyramidVisionTransformer

Rules = tuple[tuple[str, str], ...]

# The released classifiers of github.com/whai362/PVT, classification/pvt.py and pvt_v2.py; the
# latter's onto timm's names.
PVT: Rules = tuple(
    rule
    for i in range(STAGES)
    for rule in (
        (rf"^patch_embed{i + 1}\.", f"stages.{i}.patch_embed."),
        (rf"^pos_embed{i + 1}$", f"stages.{i}.pos_embed"),
        (rf"^block{i + 1}\.", f"stages.{i}.blocks."),
    )
)
PVT_V2: Rules = (
    (r"^patch_embed1\.", "patch_embed."),
    *((rf"^patch_embed{i + 1}\.", f"stages.{i}.downsample.") for i in range(1, STAGES)),
    *((rf"^block{i + 1}\.", f"stages.{i}.blocks.") for i in range(STAGES)),
    *((rf"^norm{i + 1}\.", f"stages.{i}.norm.") for i in range(STAGES)),
    (r"\.dwconv\.dwconv\.", ".dwconv."),
)
# torchvision's files are older than its own names.
DENSENET: Rules = ((r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2."),)

# No rules first: a file in the network's own names stays as it is.
RULES: tuple[Rules, ...] = ((), PVT, PVT_V2, DENSENET)

# A backbone inside something larger: compiled, data parallel, a LightningModule, a detector.
WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.", "network.", "model.", "backbone.")
# What files have and no backbone here: classifiers on inner layers, for training only, and the
# neck that torchvision's detectors keep inside their backbone.
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.", "fpn.")
LAST_POSITIONS = f"stages.{STAGES - 1}.pos_embed"


def inside(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors behind a prefix, without it; all tensors if none has it."""
    found = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    return found or state


def unwrap(backbone: nn.Module, state: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The tensors of a backbone that a checkpoint of something larger holds; before, their prefix.

    It is the prefix behind which most of the backbone's names lie. Where these are few, the file
    is another network's, and the usual prefixes go.
    """
    own = {plain_name(name) for name in backbone.state_dict()}
    prefix = best_prefix(own, state)
    if prefix is not None:
        return prefix, inside(state, prefix)
    for wrapper in WRAPPERS:
        state = inside(state, wrapper)
    return "", state


def best_prefix(own: Set[str], names: Iterable[str]) -> str | None:
    """The prefix in dotted names behind which most of `own`, plain names, lie; None if under half.

    Among equals the order of `NESTED` decides, then the file's: a script has what it trains before
    its momentum copy.
    """
    fits: Counter[str] = Counter()
    for rules in RULES:
        counts: Counter[str] = Counter()
        for name in names:
            parts = name.split(".")
            for start in range(len(parts)):
                if plain_name(rename(".".join(parts[start:]), rules)) in own:
                    counts["".join(f"{part}." for part in parts[:start])] += 1
        fits |= counts

    def rank(prefix: str) -> tuple[int, list[int]]:
        parts = prefix.split(".")[:-1]
        return -fits[prefix], sorted(
            NESTED.index(part) if part in NESTED else len(NESTED) for part in parts
        )

    best = min(fits, key=rank, default=None)
    return best if best is not None and 2 * fits[best] > len(own) else None


def plain_name(name: str) -> str:
    """A name that a classifier's tensor shares with the same tensor of its pyramid.

    timm's pyramids write layers.0.x as layers_0.x, and lie in `body` here, whose part that counts
    timm may call `model`.
    """
    return re.sub(r"^(body\.)+(model\.)?", "", name).replace(".", "_")


def translate(backbone: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of a file the names that they have in the backbone.

    Of the known ways to name tensors the file's is the one that fits best. A tensor that the
    backbone does not have keeps the name that it would have in the classifier.
    """
    own = {plain_name(name): name for name in backbone.state_dict()}
    ways = [{rename(name, rules): value for name, value in state.items()} for rules in RULES]
    state = max(ways, key=lambda way: len({plain_name(name) for name in way} & own.keys()))
    if isinstance(backbone, PyramidVisionTransformer):
        state = split_positions(state)
    return {own.get(plain_name(name), name): value for name, value in state.items()}


def rename(name: str, rules: Rules) -> str:
    """Apply all rules, patterns with their replacements, to a name."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def split_positions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the class token's position out of the last stage's, where released files keep it.

    Their detectors too, which have no class token: it shows in the length, a square and one.
    """
    positions = state.get(LAST_POSITIONS)
    if positions is None or positions.ndim != 3 or "cls_position" in state:
        return state
    grid = positions.shape[1] - 1
    if not grid or isqrt(grid) ** 2 != grid:
        return state
    return {**state, "cls_position": positions[:, :1], LAST_POSITIONS: positions[:, 1:]}


def head_prefixes(backbone: nn.Module) -> tuple[str, ...]:
    """The names of a classifier's last layers."""
    config = getattr(backbone, "pretrained_cfg", None) or {"classifier": ("head", "fc")}
    names = config.get("classifier") or ()
    return tuple(f"{head}." for head in ([names] if isinstance(names, str) else names))
