"""Published tables filled with runs, and the published numbers of a single run."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from pvt_bench.config.schema import Report
from pvt_bench.report.sources.runs import Runs
from pvt_bench.report.tables.gaps import explain_gaps
from pvt_bench.report.tables.groups import Run, find_origins
from pvt_bench.report.tables.layouts import (
    UNPUBLISHED,
    Layout,
    Settings,
    is_own_data,
    matching_rows,
)
from pvt_bench.report.tables.protocols import Prepared, prepare
from pvt_bench.report.tables.published import FIGURES, figures_of, load_published
from pvt_bench.report.tables.rows import Origin, Row, Table, value_of

METRICS = {"cost": ("cost/",), "speed": ("speed/",), "score": ("cost/", "val/")}


class Measured(NamedTuple):
    """Measurement of a run. what: values of `model.name` and the layout's keys; row: by metric."""

    what: Mapping[str, str]
    row: Mapping[str, float]
    origin: Origin | None = None


def published_table(
    runs: Runs, layout: Layout, command: str, cells: Collection[tuple[str, ...]] = ()
) -> Table:
    """Fill a layout with the runs of its cells.

    A run with other settings than its cell, or scored on other data, is ignored.

    command: printed above the table, as what makes it.
    cells: model and keys of those that the command ran: a cost that stands for all schedules goes
        into their rows only.
    """
    prepared = prepare(runs.keep(runs.table["task.name"].isin(layout.tasks)))
    table, notes = _one_condition(prepared)
    origins = find_origins(table)
    measured: list[tuple[int, Measured]] = []
    left_out = Counter[str]()
    for run, what in each_setting(table, runs.params):
        row = table.loc[run, list(runs.metrics)].dropna().to_dict()
        found = _places(layout, what, table.at[run, "kind"])
        own = {each: found[each] for each in found if (*_key(layout, each).values(),) in cells}
        places = own or found
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
        made = f"python -m pvt_bench table={layout.name} makes them."
        notes.append(f"No run of its cells was found: {made}")
    return compare(layout.name, layout.report, [each for _, each in measured], command, notes)


def compare(
    name: str,
    layout: Report,
    measured: Sequence[tuple[Mapping[str, str], Mapping[str, float]] | Measured],
    command: str = "",
    notes: Sequence[str] = (),
) -> Table:
    """Join measurements with the agreed published rows.

    measured: several runs of one row become their mean and deviation; those without a published
    row come last. command: stands above the table; notes: below it, after the layout's.
    """
    published = load_published(layout.published)
    published = published[published["agreed"] == "yes"]
    runs: dict[tuple[str, ...], list[Measured]] = defaultdict(list)
    for each in measured:
        run = Measured(*each)
        runs[(run.what["model.name"], *(run.what[key] for key in layout.keys))].append(run)
    rows, printed = [], set()
    for _, line in published.iterrows():
        key = (line["model"], *(line[key] for key in layout.keys))
        printed.add(key)
        rows.append(_row(layout, line, key, runs.get(key, [])))
    for key, of_key in runs.items():
        if key not in printed:
            line = pd.Series({"section": UNPUBLISHED, "label": key[0]})
            rows.append(_row(layout, line, key, of_key))
    texts = {"label": "", "model": "model", **{key: _heading(key) for key in layout.keys}}
    return Table(
        name,
        layout.title,
        command or f"python -m pvt_bench table={name}",
        texts,
        {column: FIGURES[column] for column in layout.columns},
        rows,
        beside=layout.columns,
        notes=[*([layout.note.strip()] if layout.note else []), *notes],
        remarks=explain_gaps(layout, rows),
    )


def each_setting(table: pd.DataFrame, params: tuple[str, ...]) -> Iterator[tuple[Run, Settings]]:
    """Settings of each run, without the keys that it does not have."""
    columns = [key for key in params if key in table]
    for run, *texts in table[columns].itertuples(name=None):
        yield run, {key: text for key, text in zip(columns, texts, strict=True) if text == text}


def counterpart(layout: Layout, what: Settings, kind: str) -> dict[str, str]:
    """Published figures of a run by name: its cost, and scores if they are comparable."""
    found: dict[str, str] = {}
    rows = layout.rows
    for of in dict.fromkeys(("cost", kind)):
        for place in matching_rows(layout, what, of):
            for name in figures_of(rows):
                if FIGURES[name].kind == of and rows.at[place, name]:
                    found.setdefault(name, rows.at[place, name])
    return found


def _places(layout: Layout, what: Settings, kind: str) -> dict[int, tuple[str, ...]]:
    """Rows that a run belongs to, one per key, with the metrics that it fills in each."""
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
        notes.append(f"Scores on other data are ignored ({counts['other data']}).")
    if counts["other settings"]:
        notes.append(
            "Runs of its tasks with other settings than its cells are ignored "
            f"({counts['other settings']})."
        )
    return [*notes, *(["The report without table= shows them."] if notes else [])]


def _one_condition(prepared: Prepared) -> tuple[pd.DataFrame, list[str]]:
    """Drop speeds of all but the newest condition, and say so."""
    table, keys = prepared.table, prepared.speed_conditions()
    speeds = table[table["kind"] == "speed"].sort_values("started")
    if speeds.empty:
        return table, []
    newest = speeds.iloc[-1]
    same = (speeds[keys].astype(str) == newest[keys].astype(str)).all(axis="columns")
    words = ", ".join(f"{key.rpartition('.')[2]} {newest[key]}" for key in keys)
    note = f"Speeds are of {words}."
    if not same.all():
        note += f" Speeds under other conditions are ignored ({(~same).sum()})."
    return table.drop(index=speeds.index[~same]), [note]


def _row(layout: Report, line: pd.Series, key: Sequence[str], runs: Sequence[Measured]) -> Row:
    values = {
        name: value_of(FIGURES[name], _numbers(runs, FIGURES[name].metric))
        for name in layout.columns
    }
    return Row(
        (line["label"], *key),
        values,
        line["section"],
        {name: line.get(name, "") for name in layout.columns},
        tuple(dict.fromkeys(run.origin for run in runs if run.origin is not None)),
    )


def _numbers(runs: Iterable[Measured], metric: str) -> list[float]:
    return [run.row[metric] for run in runs if metric in run.row]


def _heading(key: str) -> str:
    return key.partition(".")[0] if key == "schedule.name" else key.rpartition(".")[2]
