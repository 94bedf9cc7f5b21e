"""Runs, one per row, from their records or from an MLflow store."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

from pvt_bench.errors import InputError
from pvt_bench.identity import ABSENT, of_other_view
from pvt_bench.report.sources.loaded import ALWAYS, FINISHED, INFO, Loaded, Source, canonical
from pvt_bench.tracking.addresses import (
    SERVERS,
    check_uri,
    choose_uri,
    reveal,
    sqlite_file,
    without_password,
)


@dataclass(frozen=True)
class Runs:
    """Runs with their settings and metrics.

    table: a row a run; the columns are INFO, then `params`, then `metrics`. Only a finished run
    has metrics.
    """

    table: pd.DataFrame
    params: tuple[str, ...]
    metrics: tuple[str, ...]
    source: Source
    left_out: tuple[str, ...] = ()

    def keep(self, rows: "pd.Series[bool]") -> "Runs":
        """Keep these rows only."""
        return replace(self, table=self.table[rows])


def load_runs(results_dir: str | Path, uri: str | None = None, only: Collection[Path] = ()) -> Runs:
    """Load the runs of an MLflow store, or without an address the records in `results_dir`.

    only: directories of records, in place of all.

    Raises:
        InputError: the place is not there, cannot be read, or holds no run of pvt-bench.
    """
    source = _open_source(results_dir, uri, only)
    loaded = source.load()
    if loaded.info.empty:
        also = "".join(f" {sentence}" for sentence in loaded.left_out)
        raise InputError(
            f"There are no runs of pvt-bench in {source.place}.{also} Make one, for example: "
            "python -m pvt_bench model=pvt_small task=coco_retinanet mode=cost"
            f"{_other_place(results_dir, uri)}"
        )
    return _joined(source, loaded)


def _open_source(results_dir: str | Path, uri: str | None, only: Collection[Path]) -> Source:
    if uri is None:
        from pvt_bench.report.sources.records import Records

        return Records(Path(results_dir), only)
    check_uri(uri)
    uri = reveal(uri)
    if urlsplit(uri).scheme in SERVERS:
        from pvt_bench.report.sources.server import Server

        return Server(uri)
    from pvt_bench.report.sources.database import Database

    return Database(uri)


def _joined(source: Source, loaded: Loaded) -> Runs:
    info = loaded.info[list(INFO)]
    params = loaded.params.reindex(info.index).map(canonical, na_action="ignore")
    params = params[sorted(params)]
    params[[key for key in ALWAYS if key not in params]] = None
    # Older runs list what their task does not read, too.
    views = {key: key.split(".")[1] for key in params if of_other_view(key, None)}
    for key, view in views.items() if "task.view" in params else ():
        params.loc[params["task.view"] != view, key] = None
    for key in ABSENT.keys() & set(params):
        params[key] = params[key].fillna(str(ABSENT[key]))
    metrics = loaded.metrics.reindex(info.index).astype(float)
    metrics[info["state"] != FINISHED] = float("nan")
    metrics = metrics[[name for name in metrics if name not in {*INFO, *params.columns}]]
    table, notes = _once(pd.concat([info, params, metrics], axis="columns"))
    return Runs(
        table, tuple(params.columns), tuple(metrics.columns), source, (*loaded.left_out, *notes)
    )


def _once(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Keep each identity once: its newest finished run, or else its newest."""
    ordered = table.assign(_finished=table["state"] == FINISHED)
    ordered = ordered.sort_values(["_finished", "started"], kind="stable")
    again = ordered["identity"].duplicated(keep="last") & ordered["identity"].notna()
    kept = table[table.index.isin(ordered.index[~again])]
    notes = (
        [f"Older or unfinished copies of runs are ignored ({again.sum()})."] if again.any() else []
    )
    return kept, notes


def _other_place(results_dir: str | Path, uri: str | None) -> str:
    if uri is not None:
        return ""
    store = choose_uri(None, results_dir)
    file = sqlite_file(store)
    if file is not None and not file.is_file():
        return ""
    word = shlex.quote(f"tracking.uri={without_password(store)}")
    return f"\nThere is an MLflow store: {word} reads it."
