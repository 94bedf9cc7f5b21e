"""Which file a name in an annotation file means."""

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from pvt_bench.datasets.faults.files import is_file


def find_files(folder: Path, names: Sequence[str]) -> tuple[list[str], int]:
    """The path below `folder` of each name, and how many were found under another spelling.

    A name is looked up as it is written; then with / for \\, without %-codes, without the folder
    in front, and with its accents composed or decomposed, as systems write them differently. One
    that is not found stays as it is. No name leads out of the folder.
    """
    listed = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    composed = {unicodedata.normalize("NFC", name): name for name in listed}
    found, changed = [], 0
    for name in names:
        if name not in listed:
            spelt = next(_present(folder, composed, name), name)
            changed += spelt != name
            name = spelt
        found.append(name)
    return found, changed


def is_inside(name: str) -> bool:
    """Whether a path stays below the folder that it is relative to."""
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and not path.is_absolute() and ".." not in path.parts


def _present(folder: Path, composed: dict[str, str], name: str) -> Iterator[str]:
    for spelt in _spellings(folder, name):
        if not is_inside(spelt):
            continue
        if unicodedata.normalize("NFC", spelt) in composed:
            yield composed[unicodedata.normalize("NFC", spelt)]
        for form in ("NFC", "NFD"):
            path = spelt if form == "NFC" else unicodedata.normalize(form, spelt)
            if is_file(folder / path):
                yield path


def _spellings(folder: Path, name: str) -> Iterator[str]:
    slashes = name.replace("\\", "/")
    for spelt in (name, slashes, unquote(name), unquote(slashes).replace("\\", "/")):
        yield spelt
        for form in (spelt, unicodedata.normalize("NFC", spelt)):
            short = form.removeprefix("./").removeprefix(f"{folder.name}/")
            if short != spelt:
                yield short
