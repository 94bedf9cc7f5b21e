"""Measured beside published: one row of a published table a line."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pvt_bench import escaping
from pvt_bench.config.schema import Gap, Report
from pvt_bench.files import replace
from pvt_bench.report.formats.markdown import to_markdown
from pvt_bench.report.formats.terminal import show_table
from pvt_bench.report.tables.layouts import UNPUBLISHED
from pvt_bench.report.tables.published import FIGURES, as_number, load_published
from pvt_bench.report.tables.rows import Origin, Row, Table, value_of

COSTS = ("params_m", "gflops")
# A published cost is met where ours prints to the same digit, or is this near: parameters in
# millions, GFLOPs as a share. A difference that is explained is closed within the share.
NEAR_PARAMS_M, NEAR_SHARE = 0.06, 0.01


class Measured(NamedTuple):
    """A run: what it was, the values of `model.name` and of the layout's keys as text, and what
    it measured, by metric."""

    what: Mapping[str, str]
    row: Mapping[str, float]
    origin: Origin | None = None


def compare(
    name: str,
    layout: Report,
    measured: Sequence[tuple[Mapping[str, str], Mapping[str, float]] | Measured],
    command: str = "",
    notes: Sequence[str] = (),
) -> Table:
    """Join what was measured with the agreed published rows.

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
        remarks=_remarks(layout, rows),
    )


def gap(layout: Report, row: Row) -> Gap | None:
    """The reason that the table gives for a row's difference, if it gives one."""
    model = row.texts[1]
    return layout.gaps.get(f"{row.section}/{model}") or layout.gaps.get(model)


def agrees(figure: str, row: Row) -> bool:
    """Whether a row's measured cost is the published one; true where either is missing."""
    printed = row.published.get(figure, "")
    measured, published = row.values[figure].mean, as_number(printed)
    if math.isnan(measured) or math.isnan(published):
        return True
    same = f"{measured:.{len(printed.partition('.')[2])}f}" == printed
    near = NEAR_PARAMS_M if figure == "params_m" else NEAR_SHARE * published
    return same or abs(measured - published) <= near


def is_closed(figure: str, row: Row, reason: Gap) -> bool:
    """Whether what a reason adds closes the difference to the published cost."""
    published = as_number(row.published.get(figure, ""))
    missing = row.values[figure].mean + getattr(reason, figure) - published
    return agrees(figure, row) or abs(missing) <= NEAR_SHARE * published


def misses(layout: Report, table: Table, tolerance: float) -> tuple[list[str], int]:
    """Sentences on the figures that miss the published one, and how many were compared.

    A cost misses where neither the table's precision nor a reason closes the difference, a score
    where it is more than `tolerance` points away, to either side. Speeds are of another device.
    """
    sentences, compared = [], 0
    for row in table.rows:
        for name, figure in table.figures.items():
            difference = row.difference(name)
            if math.isnan(difference) or figure.kind == "speed":
                continue
            compared += 1
            reason = gap(layout, row)
            if figure.kind == "score":
                # Both are decimals: 40.9 is within half a point of 40.4.
                missed = abs(difference) > tolerance + 1e-9
            else:
                missed = not (agrees(name, row) or (reason and is_closed(name, row, reason)))
            if missed:
                sentences.append(
                    f"{row.section}, {row.label}: {figure.heading} is "
                    f"{figure.show(row.values[name].mean)}, published {row.published[name]}."
                )
    return sentences, compared


def write(table: Table, directory: Path) -> list[Path]:
    """Write `<name>.md` and `<name>.csv`, each as a whole; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {".md": to_markdown([table], directory), ".csv": to_csv([table])}
    paths = []
    for suffix, text in texts.items():
        paths.append(directory / f"{table.name}{suffix}")
        replace(paths[-1], text.encode())
    return paths


def to_csv(tables: Sequence[Table]) -> str:
    """The numbers of all tables in one, with a column that names the table of several."""
    frames = [table.frame() for table in tables]
    if len(tables) > 1:
        for table, frame in zip(tables, frames, strict=True):
            frame.insert(0, "table", table.title)
    return escaping.to_csv(pd.concat(frames), float_format="%.6g")


def show(table: Table) -> None:
    """Print the table on the screen."""
    show_table(table)


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


def _remarks(layout: Report, rows: Sequence[Row]) -> list[str]:
    lines = []
    costs = [name for name in COSTS if name in layout.columns]
    for row in rows:
        reason, who = gap(layout, row), f"{row.section}, {row.texts[0]}:"
        open_ones = [
            FIGURES[name].heading
            for name in costs
            if not agrees(name, row) and not (reason and is_closed(name, row, reason))
        ]
        unmeasured = all(math.isnan(row.values[name].mean) for name in costs)
        if reason is not None and (unmeasured or not all(agrees(name, row) for name in costs)):
            lines.append(f"{who} {reason.why} {_sums(row, reason)}".rstrip())
        if open_ones:
            lines.append(f"{who} unexplained difference of {', '.join(open_ones)}.")
    return lines


def _sums(row: Row, reason: Gap) -> str:
    sums = []
    for name in COSTS:
        added = getattr(reason, name)
        if added and name in row.values and not math.isnan(row.values[name].mean):
            measured = row.values[name].mean
            sums.append(
                f"{FIGURES[name].heading}: {measured:.2f} {added:+.2f} = {measured + added:.2f}, "
                f"published {row.published[name]}."
            )
    return " ".join(sums)
