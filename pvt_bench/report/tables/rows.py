"""Parts of a table: values, the runs that they come from, rows, and cells as printed."""

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd

from pvt_bench.report.sources.loaded import FINISHED
from pvt_bench.report.tables.published import Figure, as_number

MISSING = "–"
BESIDE = ("published", "difference")
STATE = "state"
# In the order in which a row counts the states of its runs.
STATES = (FINISHED, "failed", "lost", "interrupted", "running", "queued")
# The first of these that a row has runs of is what the row is for.
KINDS = ("score", "speed", "cost")


@dataclass(frozen=True)
class Value:
    """Figure of one row, in the printed unit: the mean over `n` runs.

    deviation: the sample standard deviation, NaN of fewer than two.
    """

    mean: float = math.nan
    deviation: float = math.nan
    n: int = 0


@dataclass(frozen=True, order=True)
class Origin:
    """A run that a row comes from.

    run: its place in `Runs.table`; kind: of the figures that it is for, as in `Figure.kind`; link:
    its directory or its address.
    """

    kind: str
    seed: str
    identity: str
    name: str
    state: str
    commit: str
    date: str
    machine: str
    link: str
    run: Hashable = field(compare=False)

    @property
    def version(self) -> str:
        """Short commit, marked if the checkout differed from it."""
        commit, mark, changed = self.commit.partition("-")
        return commit[:7] + mark + changed


class Cell(NamedTuple):
    """One cell as printed. value: to sort by; NaN for none."""

    text: str
    value: float = math.nan
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One row. texts: what it is; values, published: by the name of the column."""

    texts: tuple[str, ...]
    values: Mapping[str, Value]
    section: str = ""
    published: Mapping[str, str] = field(default_factory=dict)
    origins: tuple[Origin, ...] = ()

    @property
    def label(self) -> str:
        """Texts of the row in one line."""
        return " ".join(dict.fromkeys(text for text in self.texts if text))

    @property
    def n(self) -> int:
        """Number of runs that its values come from."""
        return max((value.n for value in self.values.values()), default=0)

    @property
    def states(self) -> dict[str, Counter[str]]:
        """States of the row's runs, counted, by kind of figure; those that it is for come first."""
        of_kind = {
            kind: Counter(origin.state for origin in self.origins if origin.kind == kind)
            for kind in KINDS
        }
        return {kind: counts for kind, counts in of_kind.items() if counts}

    @property
    def is_finished(self) -> bool:
        """Whether a run of what the row is for has finished; a row without runs is."""
        first = next(iter(self.states.values()), None)
        return first is None or FINISHED in first

    @property
    def is_complete(self) -> bool:
        """Whether all of its runs have finished."""
        return all(origin.state == FINISHED for origin in self.origins)

    @property
    def state(self) -> str:
        """State of the runs in words: `failed`, `2 finished, 1 failed`, or empty without runs."""
        words = []
        for place, (kind, counts) in enumerate(self.states.items()):
            if place == 0 or {*counts} != {FINISHED}:
                words.append(f"{kind} {_counted(counts)}" if place else _counted(counts))
        return "; ".join(words)

    def difference(self, name: str) -> float:
        """Measured minus published; NaN if either is missing."""
        return self.values[name].mean - as_number(self.published.get(name, ""))


@dataclass(frozen=True)
class Table:
    """A table of results.

    name: of its files; command: what makes it; texts: the headings of the rows' texts, by key;
    figures: the other columns; beside: those that stand beside their published counterparts;
    protocol: what all rows share, by key; notes: what a reader has to know of all rows;
    remarks: on single ones.
    """

    name: str
    title: str
    command: str
    texts: Mapping[str, str]
    figures: Mapping[str, Figure]
    rows: Sequence[Row]
    beside: Collection[str] = ()
    protocol: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    remarks: Sequence[str] = ()

    @property
    def headings(self) -> list[str]:
        """Headings of the columns as printed."""
        return [part or figure for figure, part in self.columns]

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Heading of each column, with "published" or "difference" for those beside a figure."""
        figures = [
            (figure.heading, part)
            for name, figure in self.figures.items()
            for part in ("", *(BESIDE if name in self.beside else ()))
        ]
        texts = [(heading, "") for heading in (*self.texts.values(), *self._state_heading)]
        return [*texts, *figures, *([("n", "")] if self.several else [])]

    @property
    def words(self) -> int:
        """Number of columns that hold words; figures follow."""
        return len(self.texts) + len(self._state_heading)

    @cached_property
    def _state_heading(self) -> list[str]:
        """Heading of the states, in a table where a run has not finished."""
        return [] if all(row.is_complete for row in self.rows) else [STATE]

    @property
    def sections(self) -> list[tuple[str, list[Row]]]:
        """Rows by section, in order."""
        return [(name, list(rows)) for name, rows in groupby(self.rows, lambda row: row.section)]

    @cached_property
    def several(self) -> bool:
        """Whether any row comes from several runs."""
        return any(row.n > 1 for row in self.rows)

    def cells(self, row: Row) -> list[Cell]:
        """Cells of one row as printed."""
        cells = [Cell(text) for text in row.texts]
        cells += [Cell(row.state or MISSING) for _ in self._state_heading]
        for name, figure in self.figures.items():
            cells.append(self._measured(row, name, figure))
            if name in self.beside:
                printed = row.published.get(name, "")
                cells.append(Cell(printed or MISSING, as_number(printed)))
                cells.append(_difference(figure, row.difference(name), printed))
        if self.several:
            cells.append(Cell(str(row.n) if row.n else MISSING, row.n))
        return cells

    def _measured(self, row: Row, name: str, figure: Figure) -> Cell:
        value = row.values[name]
        if math.isnan(value.mean):
            return Cell(MISSING)
        text = figure.show(value.mean)
        best = row.is_finished and self._best.get((row.section, name)) == text
        if value.n > 1:
            text += f" ± {figure.show(value.deviation)}"
        if value.n < row.n and figure.kind == "score":
            text += f" ({value.n})"
        return Cell(text, value.mean, best)

    @cached_property
    def _best(self) -> dict[tuple[str, str], str]:
        """Best value of each column per section, as printed, if finished rows differ in it."""
        best = {}
        for section, rows in self.sections:
            finished = [row for row in rows if row.is_finished]
            for name, figure in self.figures.items():
                means = [row.values[name].mean for row in finished if row.values[name].n]
                if figure.better and len({figure.show(mean) for mean in means}) > 1:
                    end = max(means) if figure.better == "max" else min(means)
                    best[section, name] = figure.show(end)
        return best

    def frame(self) -> pd.DataFrame:
        """Unrounded numbers, with the published ones and the runs that they come from."""
        return pd.DataFrame([self._record(row) for row in self.rows])

    def _record(self, row: Row) -> dict[str, Any]:
        record: dict[str, Any] = {
            "section": row.section,
            **dict(zip(self.texts, row.texts, strict=True)),
        }
        for name in self.figures:
            value = row.values[name]
            record[name] = value.mean
            if self.several:
                record |= {f"{name}_deviation": value.deviation, f"{name}_n": value.n}
            if name in self.beside:
                record[f"{name}_published"] = row.published.get(name, "")
                record[f"{name}_difference"] = row.difference(name)
        if any(row.origins for row in self.rows):
            for field_name in ("state", "identity", "seed", "commit", "date", "machine"):
                record[f"run_{field_name}"] = joined(
                    getattr(origin, field_name) for origin in row.origins
                )
        return record


def _counted(states: Counter[str]) -> str:
    """States with their numbers, or the only one alone."""
    if len(states) == 1:
        return next(iter(states))
    ordered = sorted(states, key=lambda state: [*STATES, state].index(state))
    return ", ".join(f"{states[state]} {state}" for state in ordered)


def joined(words: Iterable[str]) -> str:
    """Join distinct words with semicolons."""
    return "; ".join(dict.fromkeys(word for word in words if word))


def value_of(figure: Figure, numbers: Iterable[float]) -> Value:
    """Value of what several runs measured; NaN counts as missing."""
    measured = pd.Series([*numbers], dtype=float).dropna() * figure.factor
    if figure.kind == "cost" and measured.nunique() == 1:
        # A cost is counted, not measured: all runs agree, so one is enough.
        return Value(float(measured.iloc[0]), n=1)
    return Value(float(measured.mean()), float(measured.std(ddof=1)), len(measured))


def _difference(figure: Figure, value: float, printed: str) -> Cell:
    if math.isnan(value):
        return Cell(MISSING)
    text = f"{value:+.{figure.digits}f}"
    # Scores differ in points; a percentage beside them would be mistaken for points.
    share = "" if figure.kind == "score" else f" ({100 * value / as_number(printed):+.1f} %)"
    return Cell(text + share, value)
