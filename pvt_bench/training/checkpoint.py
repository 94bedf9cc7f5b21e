"""Checkpoints that hold: complete or not there, checked when read, the newest valid one taken."""

import hashlib
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from pvt_bench.errors import InputError
from pvt_bench.files import remove_unfinished, replace, replacing, sync

FOLDER = "checkpoints"  # within a record
KEPT = 2
MEGABYTE = 10**6


def save_checkpoint(
    directory: Path, step: int, state: dict[str, Any], check: Callable[[], None] = lambda: None
) -> Path:
    """Write `state` (plain types and tensors) as the checkpoint of `step`; keep the newest two.

    The file is written beside its target, synced and renamed; its SHA-256 goes into a second file,
    so that damage is found when it is read. `check` is called just before the rename, and stops it
    by raising. A full disk leaves the older checkpoints whole and is an InputError, which says how
    much is missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"step-{step:08d}.ckpt"
    try:
        with replacing(target) as beside:
            with beside.open("wb") as file:
                torch.save(state, file)
            sync(beside)  # Takes long, and so comes before the check.
            digest = _digest(beside)
            check()
            replace(target.with_suffix(".sha256"), digest.encode())
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"The checkpoint of step {step} could not be written to {directory}: {error}. "
            f"{_missing_space(directory, state)}The older checkpoints are whole. Run the same "
            "command to go on."
        ) from error
    for old in [path for path in _newest_first(directory) if path <= target][KEPT:]:
        old.unlink()
        old.with_suffix(".sha256").unlink(missing_ok=True)
    return target


def find_newest(directory: Path, warn: Callable[[str], None] = lambda message: None) -> Path | None:
    """The newest valid checkpoint, or None; damaged ones are moved aside and warned of.

    Beside valid ones they would count among the newest two, in the place of each new checkpoint.
    """
    remove_unfinished(directory)
    for path in _newest_first(directory):
        if _is_whole(path):
            return path
        aside = path.with_suffix(f".{secrets.token_hex(4)}.damaged")
        path.replace(aside)
        warn(f"The checkpoint {path} is damaged: it is ignored, and kept as {aside.name}.")
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, on the CPU."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"The checkpoint {path} holds more than tensors and plain values, and is not read: "
            "it was not written by this project. Move it away, or start over: rerun=true."
        ) from error


def delete_checkpoints(directory: Path) -> None:
    """Remove all checkpoints: a finished run keeps its weights alone."""
    shutil.rmtree(directory, ignore_errors=True)


def _missing_space(directory: Path, state: dict[str, Any]) -> str:
    needed, free = _count_bytes(state), shutil.disk_usage(directory).free
    if needed <= free:
        return ""
    return (
        f"It takes {needed / MEGABYTE:.1f} MB and {free / MEGABYTE:.1f} MB are free: make room for "
        f"{(needed - free) / MEGABYTE:.1f} MB more. "
    )


def _count_bytes(state: object) -> int:
    """Of the tensors in nested dicts and lists, beside which the rest takes nothing."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(map(_count_bytes, state.values()))
    return sum(map(_count_bytes, state)) if isinstance(state, list | tuple) else 0


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*.ckpt"), reverse=True)


def _is_whole(path: Path) -> bool:
    try:
        return path.with_suffix(".sha256").read_text().strip() == _digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
