"""Paths that a run reads and writes: what is missing is told before a library is loaded."""

import os
from pathlib import Path

from pvt_bench.config.choices import read_choice
from pvt_bench.config.schema import Config, Mode, select
from pvt_bench.errors import InputError

# Settings that may hold the path of a file, with the modes that read it.
FILES = {"weights": (Mode.train, Mode.test), "model.weights": (Mode.train,)}
NO_FILES = "imagenet"  # downloaded, or in a cache


def check_places(config: Config) -> None:
    """Refuse files and folders that are not there, and results that cannot be written.

    Raises:
        InputError: the first of them.
    """
    for key, modes in FILES.items():
        source = select(config, key)
        if source is not None and source != NO_FILES and config.mode in modes:
            find_file(key, str(source))
    if config.mode in (Mode.train, Mode.test):
        check_root(config)
    check_results_dir(Path(config.results_dir).expanduser())


def find_file(key: str, source: str) -> Path:
    """The file that a setting names.

    Raises:
        InputError: there is none.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"{key}={source}: there is no such file. Use {key}=PATH of a file.")
    return path


def check_root(config: Config) -> None:
    """Refuse a folder of data that is missing, where the dataset has none of its own.

    A dataset of the user's own may do without, or make it.
    """
    target, name = str(select(config, "dataset._target_")), config.dataset.name
    if not target.startswith("pvt_bench.") or read_choice("dataset", name, []).get("root"):
        return
    root = find_root(name, config.dataset.root)
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root.absolute()} (dataset.root={config.dataset.root}). Use "
            f"dataset={name} dataset.root=PATH of the unpacked files, whose layout is in "
            "docs/datasets.md, or the built-in dataset=digits."
        )


def find_root(name: str, root: str | None) -> Path:
    """The folder `root`, or $PVT_BENCH_DATA/<name> where it is None.

    Raises:
        InputError: neither is given, or the latter is missing.
    """
    if root is not None:
        return Path(root).expanduser()
    data = os.environ.get("PVT_BENCH_DATA")
    if not data:
        raise InputError(
            f"dataset={name} does not know where its files are: dataset.root is null and "
            f"PVT_BENCH_DATA is not set. Use dataset={name} dataset.root=/path, or set "
            f"PVT_BENCH_DATA to the folder that holds {name}/, or use the built-in "
            "dataset=digits."
        )
    found = Path(data).expanduser() / name
    if not found.is_dir():
        raise InputError(
            f"There is no folder {found.absolute()}: PVT_BENCH_DATA is {data}, and dataset={name} "
            f"looks for {name}/ in it. Put the files there, use dataset={name} dataset.root=/path "
            "for another place, or the built-in dataset=digits."
        )
    return found


def check_results_dir(results_dir: Path) -> None:
    """Refuse a results_dir in which nothing can be written."""
    place = results_dir.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        what = f"{place} is a file"
    elif not os.access(place, os.W_OK | os.X_OK):
        what = f"{place} is write-protected"
    else:
        return
    raise InputError(
        f"The results cannot be written to {results_dir} ({what}). Use results_dir=PATH for a "
        "folder that you can write to, or set the environment variable PVT_BENCH_RESULTS."
    )
