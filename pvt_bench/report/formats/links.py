"""Links from a report to its runs."""

import os
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit

from pvt_bench.tracking.addresses import SERVERS


def link(target: str, directory: Path) -> str:
    """A directory or an address as a link in a file of `directory`.

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


@cache
def _resolved(directory: Path) -> Path:
    """Asked for each of thousands of runs."""
    return directory.resolve()
