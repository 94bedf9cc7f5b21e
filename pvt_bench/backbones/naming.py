"""What tensors are called in published files, and which part of a network they belong to."""

import re

from torch import Tensor, nn

from pvt_bench.backbones.pvt import STAGES, PyramidVisionTransformer

# Prefixes of the released classifier's names, and ours.
RELEASED = {
    **{f"patch_embed{i + 1}.": f"stages.{i}.patch_embed." for i in range(STAGES)},
    **{f"pos_embed{i + 1}": f"stages.{i}.pos_embed" for i in range(STAGES)},
    **{f"block{i + 1}.": f"stages.{i}.blocks." for i in range(STAGES)},
}
# A backbone inside a larger module: data parallel, a LightningModule, a detector.
WRAPPERS = ("module.", "network.", "backbone.")
LAST_POSITIONS = f"stages.{STAGES - 1}.pos_embed"


def inside(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors behind a prefix, without it; all tensors if none has it."""
    found = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    return found or state


def unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a backbone that a checkpoint of something larger holds."""
    for prefix in WRAPPERS:
        state = inside(state, prefix)
    return state


def translate(backbone: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of a file the names that they have in the backbone."""
    if isinstance(backbone, PyramidVisionTransformer):
        return from_released(state)
    if getattr(backbone, "features", None) is not True:
        return state
    # timm's pyramids write layers.0.x as layers_0.x, here with our own prefix in front.
    own = {flat(name): name for name in backbone.state_dict()}
    return {
        own.get(flat(f"body.{name.removeprefix('body.')}"), name): state[name] for name in state
    }


def flat(name: str) -> str:
    """A name in which modules within modules look like those that timm has flattened."""
    return name.replace(".", "_")


def from_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the released classifier's tensors to ours; ours stay as they are."""
    renamed = {}
    for name, value in state.items():
        old = next((prefix for prefix in RELEASED if name.startswith(prefix)), "")
        renamed[RELEASED.get(old, "") + name[len(old) :]] = value
    positions = renamed.get(LAST_POSITIONS)
    if "cls_token" in renamed and "cls_position" not in renamed and positions is not None:
        # The released file keeps the class token's position in front of the last stage's.
        renamed["cls_position"], renamed[LAST_POSITIONS] = positions[:, :1], positions[:, 1:]
    return renamed


def is_part(backbone: nn.Module, name: str) -> bool:
    """Whether a tensor of a file belongs to a part that the backbone has.

    A pyramid lacks whole parts of the classifier (head, class token): they may be left over.
    """
    if getattr(backbone, "features", None) is not True:
        return True
    own = {tensor.removeprefix("body.").split(".")[0] for tensor in backbone.state_dict()}
    return name.split(".")[0] in {re.sub(r"_\d+$", "", part) for part in own}


def head_prefixes(backbone: nn.Module) -> tuple[str, ...]:
    """The names of a classifier's last layers."""
    config = getattr(backbone, "pretrained_cfg", None) or {"classifier": "head"}
    names = config.get("classifier") or ()
    return tuple(f"{head}." for head in ([names] if isinstance(names, str) else names))
