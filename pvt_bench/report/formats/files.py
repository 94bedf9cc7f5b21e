"""The files of a report: each written as a whole, with links to the runs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import quote, urlsplit

from pvt_bench.errors import InputError
from pvt_bench.files import replace
from pvt_bench.tracking.addresses import SERVERS


def write_files(directory: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write files by name; returns their paths.

    Raises:
        InputError: the directory cannot be written. A file is then as it was before, or as it
            shall be, never in between.
    """
    paths = []
    with _writing(directory):
        for name, content in contents.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, content.encode() if isinstance(content, str) else content)
            paths.append(path)
    return paths


def check_writable(directory: Path) -> None:
    """Refuse a directory that cannot be written before any work is done for it.

    Raises:
        InputError: with what to type.
    """
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory):
            pass


def link(target: str, directory: Path) -> str:
    """Link to a directory or an address from a file in `directory`.

    A directory becomes a relative path; what is neither, such as s3://bucket, no link: empty.
    """
    try:
        scheme = urlsplit(target).scheme
    except ValueError:  # a store may hold any text
        return ""
    if scheme in SERVERS:
        return quote(target, safe=":/#?=&@%[]")
    if scheme or not target:
        return ""
    return quote(Path(os.path.relpath(target, _resolved(directory))).as_posix())


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The report cannot be written to {directory} ({error.strerror}). Use "
            "output_dir=PATH of a directory that you can write to."
        ) from error


@cache
def _resolved(directory: Path) -> Path:
    """Resolve once what thousands of links ask for."""
    return directory.resolve()
