"""Which files of a split are there, and which are empty; without opening one."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.images import Job
from pvt_bench.datasets.faults.kinds import Fault


@dataclass
class Survey:
    """What is wrong with a split before its images are read, the images to read, its classes.

    `labels`: the files of labels that belong to no single image.
    """

    faults: list[Fault] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)


def list_sizes(folder: Path) -> dict[str, int]:
    """The files of a folder and their sizes in bytes; nothing where there is no folder."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        sizes = {entry.name: _size(entry) for entry in entries if not entry.is_dir()}
    return {name: size for name, size in sizes.items() if size is not None}


def check_listed(root: Path, folder: str, names: Iterable[str]) -> tuple[list[Fault], list[str]]:
    """Look for the files `names` of a folder below `root`: the faults, and what can be read."""
    if not (root / folder).is_dir():
        return [Fault(kinds.FOLDER_MISSING, f"{folder}/")], []
    sizes = list_sizes(root / folder)
    faults, readable = [], []
    for name in names:
        # A name may lead into a folder below, which was not listed.
        size = sizes.get(name)
        path = root / folder / name
        if size is None and is_file(path):
            size = path.stat().st_size
        if size is None:
            faults.append(Fault(kinds.FILE_MISSING, f"{folder}/{name}"))
        elif size == 0:
            faults.append(Fault(kinds.FILE_EMPTY, f"{folder}/{name}"))
        else:
            readable.append(name)
    return faults, readable


def is_file(path: Path) -> bool:
    """Whether there is such a file; no name is too long or has too odd characters to ask."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or characters that no name has
        return False


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # a link that leads nowhere, which counts as missing
        return None
