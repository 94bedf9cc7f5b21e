"""Runs from their records."""

import json
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pvt_bench.errors import InputError
from pvt_bench.identity import flatten
from pvt_bench.report.sources.loaded import INFO, SWEEPS, Loaded, content_key
from pvt_bench.screen import progress_bar
from pvt_bench.tracking.heartbeat import HEARTBEAT, is_fresh
from pvt_bench.tracking.metrics import MetricsFile
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.reading import find_records, read_status

# Errors raised when reading damaged files.
DAMAGED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError
)  # fmt: skip
# Reading so many takes seconds.
MANY = 1000
# Enough for the last value of every metric; the result of a run is in its status besides.
TAIL_BYTES = 1 << 16


class Records:
    """Records under `results_dir`, or only those in some of its directories."""

    def __init__(self, results_dir: Path, only: Collection[Path] = ()) -> None:
        self._results_dir = results_dir.expanduser().resolve()
        self._only = sorted({directory.expanduser().resolve() for directory in only})
        self.place = str(self._results_dir)

    def load(self) -> Loaded:
        """Read all records; those that cannot be read are left out."""
        infos, params, metrics, broken = {}, {}, {}, []
        sweeps = _sweeps_of_records(self._results_dir)
        for directory in _shown(self._only or find_records(self._results_dir)):
            try:
                infos[directory], params[directory], metrics[directory] = _read(
                    directory, sweeps[directory]
                )
            except (*DAMAGED, InputError) as error:
                broken.append(f"{directory} cannot be read ({str(error).splitlines()[0]}).")
        return Loaded(
            pd.DataFrame.from_dict(infos, orient="index", columns=list(INFO)),
            pd.DataFrame.from_dict(params, orient="index"),
            pd.DataFrame.from_dict(metrics, orient="index"),
            tuple(broken),
        )

    def history(self, run: Hashable, metrics: Sequence[str]) -> pd.DataFrame:
        """Metrics by step, from `metrics.jsonl`."""
        rows: dict[int, dict[str, float]] = {}
        for point in MetricsFile(Path(str(run)) / "metrics.jsonl").read():
            found = {name: point.values[name] for name in metrics if name in point.values}
            if found:
                rows.setdefault(point.step, {}).update(found)
        return pd.DataFrame.from_dict(rows, orient="index")

    def read(self, run: Hashable, name: str) -> str | None:
        """Text of a file of the record."""
        path = self.file(run, name)
        return path.read_text() if path else None

    def file(self, run: Hashable, name: str) -> Path | None:
        """Path of a file of the record."""
        path = Path(str(run)) / name
        return path if path.is_file() else None


def _shown(directories: Sequence[Path]) -> Iterator[Path]:
    if len(directories) < MANY:
        yield from directories
        return
    with progress_bar("reading records", len(directories)) as bar:
        for directory in directories:
            yield directory
            bar.advance()


def _sweeps_of_records(results_dir: Path) -> dict[Path, list[str]]:
    """Names of the sweeps that a record is a cell of, by directory."""
    names: dict[Path, list[str]] = defaultdict(list)
    for path in sorted(results_dir.glob("sweeps/*/sweep.json")):
        with suppress(*DAMAGED):  # `status` tells what is wrong with it.
            sweep = json.loads(path.read_bytes())
            for cell in sweep["cells"]:
                names[results_dir / cell["place"]].append(sweep["name"])
    return names


def _read(
    directory: Path, sweeps: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, str], dict[str, float]]:
    status = read_status(directory)
    # libyaml's own loader: the usual one takes ten times as long.
    config = yaml.load((directory / "config.yaml").read_bytes(), yaml.CSafeLoader)
    if not all(isinstance(config[group], dict) for group in ("task", "model")):
        raise ValueError(f"{directory / 'config.yaml'} is not the configuration of a run")
    shown = Presentation.read(directory)
    label, _, identity = directory.name.rpartition("-")
    info = {
        "identity": identity,
        "run_id": (status.get("mlflow") or {}).get("run_id"),
        "experiment": shown.experiment if shown else None,
        "sweep": SWEEPS.join(sweeps) or (shown.tags.get("sweep") if shown else None),
        "name": shown.name if shown else label,
        "state": _state(directory, status),
        "started": pd.Timestamp(status.get("started") or status["created"]),
        "commit": status.get("commit"),
        "host": status.get("host"),
        "device": shown.tags.get("device") if shown else None,
        "link": str(directory),
    }
    params = {key: str(value) for key, value in flatten(config)}
    params |= (
        {content_key(each["context"]): each["digest"] for each in shown.datasets} if shown else {}
    )
    points = MetricsFile(directory / "metrics.jsonl").tail(TAIL_BYTES)
    metrics = {name: value for point in points for name, value in point.values.items()}
    metrics |= status.get("result") or {}
    return tuple(info[name] for name in INFO), params, metrics


def _state(directory: Path, status: Mapping[str, Any]) -> str:
    gone = status["state"] == "running" and not is_fresh(directory / HEARTBEAT)
    return "lost" if gone else str(status["state"])
