"""Measured beside published: one row of a published table a line, as Markdown and as CSV."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pvt_bench.config import Gap, Report
from pvt_bench.report.published import FIGURES, as_number, load_published
from pvt_bench.screen import show_rows
from pvt_bench.tracking.metrics import replace

Row = Mapping[str, float]
MISSING = "–"
# A published cost is met within this share, or where it prints to the same digit.
TOLERANCE = 0.01
COSTS = ("params_m", "gflops")


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
        return ["", "model", *figures]

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
        return [row["label"], row["model"], *figures]


def compare(name: str, layout: Report, measured: Mapping[str, Row]) -> Table:
    """Join what was measured, by model, with the agreed published rows."""
    published = load_published(layout.published)
    published = published[published["agreed"] == "yes"]
    rows = [
        _joined(layout, each, measured.get(each["model"], {})) for _, each in published.iterrows()
    ]
    own = [model for model in measured if model not in set(published["model"])]
    for model in own:
        blank = pd.Series({"section": "Without a published row", "label": model, "model": model})
        rows.append(_joined(layout, blank, measured[model]))
    return Table(name, layout, pd.DataFrame(rows))


def gap(layout: Report, row: pd.Series) -> Gap | None:
    """The reason that the table gives for a row's difference, if it gives one."""
    return layout.gaps.get(f"{row['section']}/{row['model']}") or layout.gaps.get(row["model"])


def agrees(figure: str, row: pd.Series, added: float = 0.0) -> bool:
    """Whether a row's cost is the published one, with `added` on top of what was measured."""
    printed = row[f"{figure}_published"]
    measured, published = row[figure] + added, as_number(printed)
    if math.isnan(measured) or math.isnan(published):
        return True
    digits = len(printed.partition(".")[2])
    same = f"{measured:.{digits}f}" == printed
    return same or abs(measured - published) <= TOLERANCE * published


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
    row: dict[str, object] = {key: published[key] for key in ("section", "label", "model")}
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
        if reason is not None:
            lines.append(f"{who} {reason.why} {_sums(row, reason)}".rstrip())
        elif not all(agrees(name, row) for name in costs):
            lines.append(f"{who} differs by more than {TOLERANCE:.0%}, unexplained.")
    return lines


def _sums(row: pd.Series, reason: Gap) -> str:
    sums = []
    for name in COSTS:
        added = getattr(reason, name)
        if added:
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
