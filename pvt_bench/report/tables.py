"""Measured beside published: one row of a published table a line, as Markdown and as CSV."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pvt_bench.config import Gap, Report
from pvt_bench.report.published import FIGURES, as_number, load_published
from pvt_bench.screen import show_rows
from pvt_bench.tracking.metrics import replace

Row = Mapping[str, float]
MISSING = "–"
COSTS = ("params_m", "gflops")
# A published cost is met where ours prints to the same digit, or is this near: parameters in
# millions, GFLOPs as a share. A difference that is explained is closed within the share.
NEAR_PARAMS_M, NEAR_SHARE = 0.06, 0.01


@dataclass(frozen=True)
class Table:
    """A table of results.

    layout: what it shows; rows: one a published row and one a measured model that has none, with
    the columns `section`, `label`, `model` and for each figure `<figure>`, `<figure>_published`
    (text, as printed) and `<figure>_difference`.
    """

    name: str
    layout: Report
    rows: pd.DataFrame

    @property
    def headings(self) -> list[str]:
        """The headings of the columns as printed."""
        figures = [
            heading
            for name in self.layout.columns
            for heading in (FIGURES[name].heading, "published", "difference")
        ]
        keys = [
            key.rpartition(".")[2] if key != "schedule.name" else "schedule"
            for key in self.layout.keys
        ]
        return ["", "model", *keys, *figures]

    def cells(self, row: pd.Series) -> list[str]:
        """One row as printed."""
        figures: list[str] = []
        for name in self.layout.columns:
            figure = FIGURES[name]
            figures += [
                MISSING if math.isnan(row[name]) else f"{row[name]:.{figure.digits}f}",
                row[f"{name}_published"] or MISSING,
                _difference(row[f"{name}_difference"], row[f"{name}_published"]),
            ]
        return [row["label"], row["model"], *(row[key] for key in self.layout.keys), *figures]


def compare(name: str, layout: Report, measured: Sequence[tuple[Mapping[str, str], Row]]) -> Table:
    """Join what was measured with the agreed published rows.

    measured: pairs of what a run was, the values of `model.name` and of the layout's keys as
    text, and its row. Runs without a published row come last.
    """
    published = load_published(layout.published)
    published = published[published["agreed"] == "yes"]
    runs = {_key(layout, what): row for what, row in measured}
    rows = []
    for _, each in published.iterrows():
        what = {"model.name": each["model"], **{key: each[key] for key in layout.keys}}
        rows.append(_joined(layout, each, runs.get(_key(layout, what), {})))
    printed = {(row["model"], *(row[key] for key in layout.keys)) for row in rows}
    for key, row in runs.items():
        if key not in printed:
            own = dict(zip(("model", *layout.keys), key, strict=True))
            own |= {"section": "Without a published row", "label": key[0]}
            rows.append(_joined(layout, pd.Series(own), row))
    return Table(name, layout, pd.DataFrame(rows))


def _key(layout: Report, what: Mapping[str, str]) -> tuple[str, ...]:
    return (what["model.name"], *(what[key] for key in layout.keys))


def gap(layout: Report, row: pd.Series) -> Gap | None:
    """The reason that the table gives for a row's difference, if it gives one."""
    return layout.gaps.get(f"{row['section']}/{row['model']}") or layout.gaps.get(row["model"])


def agrees(figure: str, row: pd.Series) -> bool:
    """Whether a row's measured cost is the published one; true where either is missing."""
    printed = row[f"{figure}_published"]
    measured, published = row[figure], as_number(printed)
    if math.isnan(measured) or math.isnan(published):
        return True
    same = f"{measured:.{len(printed.partition('.')[2])}f}" == printed
    near = NEAR_PARAMS_M if figure == "params_m" else NEAR_SHARE * published
    return same or abs(measured - published) <= near


def is_closed(figure: str, row: pd.Series, reason: Gap) -> bool:
    """Whether what a reason adds closes the difference to the published cost."""
    published = as_number(row[f"{figure}_published"])
    missing = row[figure] + getattr(reason, figure) - published
    return agrees(figure, row) or abs(missing) <= NEAR_SHARE * published


def write(table: Table, directory: Path) -> list[Path]:
    """Write `<name>.md` and `<name>.csv`, each as a whole; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {".md": to_markdown(table), ".csv": table.rows.to_csv(index=False, float_format="%.6g")}
    paths = []
    for suffix, text in texts.items():
        paths.append(directory / f"{table.name}{suffix}")
        replace(paths[-1], text.encode())
    return paths


def to_markdown(table: Table) -> str:
    """The table in sections, then what its numbers mean and why some differ."""
    lines = [f"# {table.layout.title}", "", f"`python -m pvt_bench table={table.name}`", ""]
    for section, rows in table.rows.groupby("section", sort=False):
        align = ["---", "---", *["---:"] * (len(table.headings) - 2)]
        lines += [f"## {section}", "", _line(table.headings), _line(align)]
        lines += [_line(table.cells(row)) for _, row in rows.iterrows()]
        lines.append("")
    return "\n".join([*lines, *_notes(table)]) + "\n"


def show(table: Table) -> None:
    """Print the table on the screen."""
    for section, rows in table.rows.groupby("section", sort=False):
        cells = [table.cells(row) for _, row in rows.iterrows()]
        show_rows(str(section), table.headings, [list(line) for line in cells])


def _joined(layout: Report, published: pd.Series, measured: Row) -> dict[str, object]:
    row: dict[str, object] = {
        key: published[key] for key in ("section", "label", "model", *layout.keys)
    }
    for name in layout.columns:
        figure = FIGURES[name]
        value = measured.get(figure.metric, math.nan) * figure.factor
        printed = published.get(name, "")
        difference = value - as_number(printed)
        row |= {name: value, f"{name}_published": printed, f"{name}_difference": difference}
    return row


def _notes(table: Table) -> list[str]:
    lines = ["## Notes", ""]
    if table.layout.note:
        lines += [table.layout.note.strip(), ""]
    costs = [name for name in COSTS if name in table.layout.columns]
    for _, row in table.rows.iterrows():
        reason, who = gap(table.layout, row), f"- {row['section']}, {row['label']}:"
        open_ones = [
            FIGURES[name].heading
            for name in costs
            if not agrees(name, row) and not (reason and is_closed(name, row, reason))
        ]
        unmeasured = all(math.isnan(row[name]) for name in costs)
        if reason is not None and (unmeasured or not all(agrees(name, row) for name in costs)):
            lines.append(f"{who} {reason.why} {_sums(row, reason)}".rstrip())
        if open_ones:
            lines.append(f"{who} unexplained difference of {', '.join(open_ones)}.")
    return lines


def _sums(row: pd.Series, reason: Gap) -> str:
    sums = []
    for name in COSTS:
        added = getattr(reason, name)
        if added and not math.isnan(row[name]):
            heading, total = FIGURES[name].heading, row[name] + added
            sums.append(
                f"{heading}: {row[name]:.2f} {added:+.2f} = {total:.2f}, published "
                f"{row[f'{name}_published']}."
            )
    return " ".join(sums)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _difference(value: float, printed: str) -> str:
    if math.isnan(value):
        return MISSING
    return f"{value:+.2f} ({100 * value / as_number(printed):+.1f} %)"
