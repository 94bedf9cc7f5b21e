"""A published table filled with runs, and published numbers beside a table without layout."""

from collections import Counter
from collections.abc import Iterator, Mapping

import pandas as pd

from pvt_bench.report.sources.runs import Runs
from pvt_bench.report.tables.beside import Measured, compare
from pvt_bench.report.tables.groups import Run, find_origins
from pvt_bench.report.tables.layouts import Layout, load_layout
from pvt_bench.report.tables.matching import is_own_data, matching_rows
from pvt_bench.report.tables.protocols import Prepared, prepare
from pvt_bench.report.tables.published import FIGURES, figures_of
from pvt_bench.report.tables.rows import Table

METRICS = {"cost": ("cost/",), "speed": ("speed/",), "score": ("cost/", "val/")}
Settings = Mapping[str, str]


def published_table(runs: Runs, name: str, command: str) -> Table:
    """The layout of `experiments/table/<name>.yaml`, filled with the runs of its cells.

    A run that was set to anything else than its cell, or scored on other data, stands nowhere.
    """
    layout = load_layout(name)
    prepared = prepare(runs.keep(runs.table["task.name"].isin(layout.tasks)))
    table, notes = _one_condition(prepared)
    origins = find_origins(table)
    measured: list[tuple[int, Measured]] = []
    left_out = Counter[str]()
    for run, what in each_setting(table, runs.params):
        row = table.loc[run, list(runs.metrics)].dropna().to_dict()
        places = _places(layout, what, table.at[run, "kind"])
        for place, metrics in places.items():
            kept = {key: number for key, number in row.items() if key.startswith(metrics)}
            measured.append((place, Measured(_key(layout, place), kept, origins[run])))
        if not places:
            left_out["other settings"] += 1
        elif table.at[run, "kind"] == "score" and not is_own_data(what):
            left_out["other data"] += 1
    measured.sort(key=lambda pair: pair[0])
    notes += _left_out(left_out)
    if not measured:
        notes.append(f"None of its cells was found: python -m pvt_bench table={name} makes them.")
    return compare(name, layout.report, [each for _, each in measured], command, notes)


def each_setting(table: pd.DataFrame, params: tuple[str, ...]) -> Iterator[tuple[Run, Settings]]:
    """What each run was set to, without the keys that it does not have."""
    columns = [key for key in params if key in table]
    for run, *texts in table[columns].itertuples(name=None):
        yield run, {key: text for key, text in zip(columns, texts, strict=True) if text == text}


def counterpart(layout: Layout, what: Settings, kind: str) -> dict[str, str]:
    """What is published of a run, by the figure's name: costs, and scores where they compare."""
    found: dict[str, str] = {}
    rows = layout.rows
    for of in dict.fromkeys(("cost", kind)):
        for place in matching_rows(layout, what, of):
            for name in figures_of(rows):
                if FIGURES[name].kind == of and rows.at[place, name]:
                    found.setdefault(name, rows.at[place, name])
    return found


def _places(layout: Layout, what: Settings, kind: str) -> dict[int, tuple[str, ...]]:
    """The rows that a run is of, one of those with the same keys, and its metrics for each."""
    places = dict.fromkeys(matching_rows(layout, what, kind), METRICS[kind])
    if not places and kind == "score":
        places = dict.fromkeys(matching_rows(layout, what, "cost"), METRICS["cost"])
    first = {tuple(_key(layout, place).items()): place for place in reversed(places)}
    return {place: places[place] for place in first.values()}


def _key(layout: Layout, place: int) -> Settings:
    row = layout.rows.loc[place]
    return {"model.name": row["model"], **{key: row[key] for key in layout.report.keys}}


def _left_out(counts: Counter[str]) -> list[str]:
    notes = []
    if counts["other data"]:
        notes.append(f"The scores of {counts['other data']} runs on other data are left out.")
    if counts["other settings"]:
        notes.append(
            f"{counts['other settings']} runs of its tasks that were set to anything else than its "
            "cells are left out."
        )
    return [*notes, *(["Without table= they have tables of their own."] if notes else [])]


def _one_condition(prepared: Prepared) -> tuple[pd.DataFrame, list[str]]:
    """The runs with the speeds of the newest condition alone, and a sentence on them."""
    table, keys = prepared.table, prepared.speed_conditions()
    speeds = table[table["kind"] == "speed"].sort_values("started")
    if speeds.empty:
        return table, []
    newest = speeds.iloc[-1]
    same = (speeds[keys].astype(str) == newest[keys].astype(str)).all(axis="columns")
    words = ", ".join(f"{key.rpartition('.')[2]} {newest[key]}" for key in keys)
    note = f"Speeds are of {words}."
    if not same.all():
        note += f" {(~same).sum()} speeds under other conditions are left out."
    return table.drop(index=speeds.index[~same]), [note]
