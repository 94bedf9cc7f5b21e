"""Tensors in files: opened without running code, written whole or not at all."""

import re
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pvt_bench.backbones.pickled import ALLOWED, PlainArray
from pvt_bench.errors import InputError
from pvt_bench.files import replacing

# Where training scripts put the state dict inside a checkpoint. The moving average of the weights
# goes first: it is what such a script scores, and some published files hold nothing else. So do
# a teacher's before its student's.
NESTED = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema_state", "ema"),
    *("params_ema", "state_dict", "model_state_dict", "model_state", "model", "network", "net"),
    *("teacher", "student", "module", "backbone", "encoder", "params", "weights"),
)
# How many keys may lead to a state dict; a checkpoint may hold itself.
DEPTH = 4

# Writes the tensors of the file argv[1], of what the keys argv[3:] lead to in it, to argv[2].
RECIPE = (
    "import functools, sys, torch; "
    "f = lambda x: x.state_dict() if isinstance(x, torch.nn.Module) else "
    "{k: f(v) for k, v in x.items() if isinstance(k, str)} if isinstance(x, dict) else "
    "x if isinstance(x, torch.Tensor) else None; "
    'x = torch.load(sys.argv[1], weights_only=False, map_location="cpu"); '
    "torch.save(f(functools.reduce(lambda x, k: x[k], sys.argv[3:], x)), sys.argv[2])"
)


@dataclass(frozen=True)
class StateFile:
    """A state dict in a file.

    Attributes:
        place: the path, and the keys that lead to the state dict.
        tensors: by name, on the CPU.
        left_out: names of what lies among the tensors and is none.
    """

    place: str
    tensors: dict[str, Tensor]
    left_out: list[str]


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU, see `read_state`."""
    return read_state(path).tensors


def read_state(path: str | Path) -> StateFile:
    """Read a state dict onto the CPU: .safetensors, or any file of `torch.save` without objects.

    A checkpoint holds it at its top, under keys of `NESTED`, or as the only one under other keys.

    Raises:
        InputError: no such file; an empty, truncated or foreign one; one without a state dict, or
            with several; one that holds code or objects, which are never unpickled.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}. Use the path of a .pth or .safetensors file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty. Copy or download it again.")
    content = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    found = find_states(content)
    if not found:
        held = (
            ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        )
        raise InputError(
            f"{path} holds no state dict: expected names with tensors, at its top or under a key "
            f"such as state_dict or model; it holds {held or 'nothing'}. Use the path of a file "
            "with a network's weights."
        )
    if len(found) > 1:
        raise InputError(
            f"{path} holds several state dicts, under {', '.join(map('.'.join, found))}; expected "
            "one, or one under a key such as state_dict or model. "
            + advise(path, f"Write the one that you mean, here {'.'.join(found[0])},", *found[0])
        )
    keys = found[0]
    for key in keys:
        content = content[key]
    tensors = {
        name: value
        for name, each in content.items()
        if isinstance(name, str) and (value := as_tensor(each)) is not None
    }
    left_out = [str(name) for name in content if name not in tensors]
    return StateFile(f"{path} ({'.'.join(keys)})" if keys else str(path), tensors, left_out)


def as_tensor(value: object) -> Tensor | None:
    """A value of a state dict as a tensor, None if it is none."""
    if isinstance(value, PlainArray):
        return value.tensor
    return value if isinstance(value, Tensor) else None


def find_states(content: Any, keys: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys that lead to the state dict to take, in a checkpoint or what `keys` led to.

    None or several where it holds none, or several and no known key says which is meant.
    """
    if not isinstance(content, Mapping) or len(keys) > DEPTH:
        return []
    # mmengine saves the average as state_dict, and what was trained as ema_state_dict.
    known = ("state_dict", *NESTED) if "message_hub" in content else NESTED
    for key in known:
        if found := find_states(content.get(key), (*keys, key)):
            return found
    if any(
        (tensor := as_tensor(value)) is not None and tensor.is_floating_point() and tensor.ndim
        for name, value in content.items()
        if isinstance(name, str)
    ):
        return [keys]
    return [
        found
        for key, value in content.items()
        if isinstance(key, str)
        for found in find_states(value, (*keys, key))
    ]


def advise(path: Path, what: str, *keys: str) -> str:
    """Say how to write a file's tensors to another file: a command to copy."""
    target = path.with_name(f"{path.stem}_tensors.pth")
    command = shlex.join(["python", "-c", RECIPE, str(path), str(target), *keys])
    return f"{what} to a new file, and use that one's path, {target}:\n{command}"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or no .safetensors file ({error}).") from error


def read_torch(path: Path) -> Any:
    """Read a file of `torch.save`, tensors and plain containers only."""
    with path.open("rb") as file:
        start = file.read(2)
    # A zip archive since torch 1.6, before that a pickle of protocol 2.
    if start not in (b"PK", b"\x80\x02"):
        raise InputError(f"{path} is neither a file of torch.save nor .safetensors by its name.")
    try:
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            # What torch warns of is in the message.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(refuse_objects(path, error)) from error
    except Exception as error:  # A damaged pickle leads torch anywhere.
        if "TorchScript" in str(error):
            raise InputError(refuse_objects(path, error)) from error
        raise InputError(
            f"{path} is truncated or damaged ({type(error).__name__}). Copy or download it again."
        ) from error


def refuse_objects(path: Path, error: Exception) -> str:
    """The message for a file that torch does not read without running what it says."""
    first = re.search(r"GLOBAL (\S+)", str(error))
    which = f" ({first[1]})" if first else ""
    return (
        f"{path} holds code or objects{which}, not just tensors, and opening it could run that "
        "code: it is refused. "
        + advise(path, "If you trust it, write its tensors, where its packages are installed,")
    )


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write a module's state dict as .safetensors; the file appears whole or not at all."""
    save_state(module.state_dict(), path)


def save_state(state: Mapping[str, Tensor], path: str | Path, **metadata: str) -> None:
    """Write named tensors as .safetensors, with texts about them in the file's header.

    The file appears whole or not at all.
    """
    path = Path(path)
    # Copies, because safetensors takes neither channels_last nor shared memory.
    copies = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        save_file(copies, beside, metadata={"format": "pt", **metadata})
