"""Arrays that take long to make from a data set, kept in one file and mapped into memory.

Processes that read the same file share its pages, loader workers and the ranks of a node alike.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pvt_bench.files import replace
from pvt_bench.screen import say, warn

# Raise it with every change to what is kept.
VERSION = 3


class Index(NamedTuple):
    """Arrays of numbers or of byte strings, and facts of JSON's types."""

    arrays: dict[str, NDArray[Any]]
    facts: dict[str, Any]


def load_index(
    folder: Path | None,
    source: Path,
    stamp: Mapping[str, Any],
    build: Callable[[], Index],
    variant: str = "",
) -> Index:
    """What `build` makes from `source`, read from `folder` where it was kept before.

    What was kept counts only if its `stamp` (sizes and times of what it was built from) is equal
    and its checksum holds; otherwise it is built anew. One process builds while the others wait.
    Without a folder, or where it cannot be written, nothing is kept.
    """
    if folder is None:
        return build()
    digest = hashlib.sha256(f"{source.absolute()} {variant}".encode()).hexdigest()[:12]
    file = folder / f"{source.stem}-{digest}.safetensors"
    expected = json.dumps({"version": VERSION, **stamp}, sort_keys=True)
    if (kept := _read(file, expected)) is not None:
        return kept
    when = "again, as it has changed" if file.exists() else "for the first time"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        locked = FileLock(file.with_suffix(".lock")).acquire()
    except (OSError, NotImplementedError) as error:
        warn(f"no index of {source} is kept, since {folder} cannot be written: {error}")
        return build()
    with locked:
        kept = _read(file, expected)
        if kept is None:
            what = f"{source} ({variant})" if variant else source
            say(f"reading {what} {when}; the result is kept in {folder}")
        return _keep(file, expected, build()) if kept is None else kept


def _read(file: Path, expected: str) -> Index | None:
    """The index in a file, or None where there is none that counts."""
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as content:  # torch maps, NumPy would copy
            held = content.metadata()
            if held["stamp"] != expected:
                return None
            arrays = {name: content.get_tensor(name).numpy() for name in content.keys()}  # noqa: SIM118
        if held["checksum"] != _checksum(arrays):
            raise ValueError("its checksum does not hold")
        facts = json.loads(held["facts"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        say(f"the index {file} is damaged ({error}): it is made anew")
        return None
    for name, width in facts.pop("widths").items():
        arrays[name] = arrays[name].view(f"S{width}")[:, 0]
    return Index(arrays, facts)


def _keep(file: Path, stamp: str, index: Index) -> Index:
    """Write an index as a whole, and read it back as every later process will."""
    arrays, widths = dict(index.arrays), {}
    for name, array in index.arrays.items():
        if array.dtype.kind == "S":
            widths[name] = array.dtype.itemsize
            arrays[name] = array.view(np.uint8).reshape(len(array), -1)
    held = {
        "stamp": stamp,
        "checksum": _checksum(arrays),
        "facts": json.dumps({**index.facts, "widths": widths}),
    }
    try:
        replace(file, save(arrays, metadata=held))  # save_file lets nobody else read it
    except (OSError, SafetensorError) as error:
        warn(f"the index {file} cannot be written: {error}")
        return index
    kept = _read(file, stamp)
    return index if kept is None else kept


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    total = 0
    for name in sorted(arrays):
        content = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
        total = zlib.crc32(content.data, total)
    return f"{total:08x}"
