"""Where a dataset's folder is, and whether what is expected lies there."""

import os
from collections.abc import Iterable
from pathlib import Path

from pvt_bench.errors import InputError


def find_root(name: str, root: str | None) -> Path:
    """The folder `root`, or $PVT_BENCH_DATA/<name> where it is None."""
    if root is not None:
        return Path(root).expanduser()
    data = os.environ.get("PVT_BENCH_DATA")
    if not data:
        raise InputError(
            f"dataset={name} does not know where its files are: dataset.root is null and "
            f"PVT_BENCH_DATA is not set. Type dataset={name} dataset.root=/path, or set "
            f"PVT_BENCH_DATA to the folder that holds {name}/, or take the built-in "
            "dataset=digits."
        )
    found = Path(data).expanduser() / name
    if not found.is_dir():
        raise InputError(
            f"There is no folder {found.absolute()}: PVT_BENCH_DATA is {data}, and dataset={name} "
            f"looks for {name}/ in it. Put the files there, type dataset={name} dataset.root=/path "
            "for another place, or take the built-in dataset=digits."
        )
    return found


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        InputError: it cannot be read, or is no such text.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Expected a text in UTF-8, as in the original archive."
        ) from error


def check_tree(name: str, title: str, root: Path, needed: Iterable[str], tree: str) -> None:
    """Raise InputError with the whole `tree` where a needed path below `root` is not there."""
    missing = [path for path in needed if not (root / path).exists()]
    if not missing:
        return
    here = f"There is no {title} tree at {root.absolute()}: {', '.join(missing)} missing. "
    if name == "digits":
        raise InputError(
            f"{here}Expected there:{tree}\n"
            "Another version may have written it: delete the folder to have it written anew, or "
            "type dataset.root=/path."
        )
    raise InputError(
        f"{here}Expected there:{tree}\n"
        f"Type dataset={name} dataset.root=/path, or set PVT_BENCH_DATA=/path where /path/{name} "
        "is that tree, or take the built-in dataset=digits."
    )
