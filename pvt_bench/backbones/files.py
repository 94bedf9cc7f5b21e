"""Tensors in files: opened without running code, written whole or not at all."""

import argparse
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pvt_bench.errors import InputError

# Where training scripts put the state dict inside a checkpoint. The moving average of the weights
# goes first: it is what such a script scores, and some published files hold nothing else.
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU: .safetensors, or any file of `torch.save` with tensors only.

    Raises:
        InputError: no such file; an empty, truncated or foreign one; one that holds code or
            objects beside tensors, which are never unpickled.
    """
    return read_state(path)[1]


def read_state(path: str | Path) -> tuple[str, dict[str, Tensor]]:
    """Read a state dict as `load_state` does; first where it was: the path, and a key of `NESTED`.

    A checkpoint that holds its state dict under one of these keys is unwrapped.
    """
    path, place = Path(path), str(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}. Type the path of a .pth or .safetensors file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty. Copy or download it again.")
    content = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content, place = content[key], f"{path} ({key})"
    tensors = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
    if not tensors or not content:
        raise InputError(
            f"{path} holds no state dict: expected names with tensors, at its top or under one of "
            f"{', '.join(NESTED)}."
        )
    return place, dict(content)


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
        # Training scripts leave their arguments beside the weights; a namespace runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds code or objects, not just tensors, and opening it could run that code: "
            "it is refused. If you trust its source, convert it on a machine of your choice: "
            "content = torch.load(PATH, weights_only=False), then "
            "safetensors.torch.save_file(content['state_dict'], 'weights.safetensors')."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is truncated or damaged ({type(error).__name__}). Copy or download it again."
        ) from error


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
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(copies, part, metadata={"format": "pt", **metadata})
        flush(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Make a file's content, or a directory's entries, survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
