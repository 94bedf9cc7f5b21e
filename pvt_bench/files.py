"""Files and folders that appear whole or not at all, whatever ends their writer."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Write a file so that at any moment it holds either the old or the new content."""
    with replacing(path) as beside:
        beside.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which takes the place of `path` at the end.

    It is synced first, so that it survives a crash of the machine. An error removes it, and leaves
    `path` as it was.
    """
    # Unique, because two processes may write the file at once.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        yield beside
        sync(beside)
        beside.replace(path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            beside.unlink(missing_ok=True)
    sync(path.parent)


def remove_unfinished(directory: Path) -> None:
    """Remove what killed processes left of the files that they were replacing."""
    for left in directory.glob(".*.new"):
        left.unlink()


def sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
