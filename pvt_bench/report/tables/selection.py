"""Selection of the runs of a report, and the columns and keys that its words name."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import pandas as pd

from pvt_bench.errors import InputError, nearest
from pvt_bench.report.sources.loaded import INFO, SWEEPS
from pvt_bench.report.sources.runs import Runs
from pvt_bench.report.tables.published import FIGURES, Figure

CONDITION = re.compile(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)(.*)")
EXAMPLE = "for example where=model.name=pvt_* or where='AP>40'"
# Digits of a metric that the papers' tables do not have.
OTHER_DIGITS = 4


def select(runs: Runs, conditions: Sequence[str]) -> Runs:
    """Keep the runs that meet all conditions, such as `model.name=pvt_*`, `seed!=3` or `AP>40`.

    Conditions name columns of `Runs.table`, or figures by their short names, in the unit of the
    tables. A text may hold `*` and `?`.

    Raises:
        InputError: a condition is invalid, names an unknown key, or is met by no run.
    """
    for condition in conditions:
        kept = runs.keep(_meets(runs, condition))
        if kept.table.empty:
            raise InputError(_none_meets(runs, condition))
        runs = kept
    return runs


def figure_of(name: str, runs: Runs) -> Figure:
    """Look up a figure by its short name or its metric.

    Raises:
        InputError: there is none of that name.
    """
    by_metric = {figure.metric: figure for figure in FIGURES.values()}
    if found := FIGURES.get(name) or by_metric.get(name):
        return found
    if name in runs.metrics:
        return Figure(name, name, digits=OTHER_DIGITS, better="")
    options = [*FIGURES, *runs.metrics]
    raise InputError(f"There is no column {name}. {nearest(name, options)}")


def check_keys(names: Sequence[str], runs: Runs, option: str) -> None:
    """Refuse keys that no run has.

    Raises:
        InputError: with the nearest names.
    """
    known = [*runs.params, *INFO]
    for name in names:
        if name not in known:
            raise InputError(f"{option}={name}: no run has that key. {nearest(name, known)}")


def _meets(runs: Runs, condition: str) -> "pd.Series[bool]":
    parts = CONDITION.fullmatch(condition)
    if parts is None:
        raise InputError(f"where={condition} is not a condition. Use {EXAMPLE}.")
    name, sign, wanted = parts.group(1), parts.group(2), parts.group(3).strip()
    values = _values(runs, name)
    if sign in ("=", "!="):
        same = _is_of_sweep if name == "sweep" else _equal
        equal = values.map(lambda value: same(value, wanted)).astype(bool)
        return equal if sign == "=" else ~equal
    limit = pd.to_numeric(wanted, errors="coerce")
    if pd.isna(limit):
        raise InputError(f"where={condition}: {wanted!r} is not a number. Use {EXAMPLE}.")
    numbers = pd.to_numeric(values, errors="coerce")
    compare = {"<": numbers.lt, ">": numbers.gt, "<=": numbers.le, ">=": numbers.ge}
    return compare[sign](limit)


def _values(runs: Runs, name: str) -> pd.Series:
    if name in FIGURES:
        figure = FIGURES[name]
        if figure.metric in runs.metrics:
            return runs.table[figure.metric] * figure.factor
        return pd.Series(float("nan"), runs.table.index)
    if name not in runs.table.columns:
        known = [*runs.table.columns, *FIGURES]
        raise InputError(f"where={name}: no run has that key. {nearest(name, known)}")
    return runs.table[name]


def _equal(value: object, wanted: str) -> bool:
    if isinstance(value, float) and pd.isna(value):
        return False
    text, pattern = str(value).replace(" ", ""), wanted.replace(" ", "")
    if text == pattern:
        return True
    try:
        return float(text) == float(pattern)
    except ValueError:
        # Brackets belong to a list; they are no set of characters.
        return fnmatchcase(text, pattern.replace("[", "[[]"))


def _is_of_sweep(names: object, wanted: str) -> bool:
    """Whether a run is of a sweep, named with or without the last part of its name."""
    each = str(names).split(SWEEPS)
    return any(_equal(form, wanted) for name in each for form in (name, name.rpartition("-")[0]))


def _none_meets(runs: Runs, condition: str) -> str:
    parts = CONDITION.fullmatch(condition)
    name = parts.group(1) if parts else ""
    found = sorted(map(str, _values(runs, name).dropna().unique()))[:8]
    there = f" They have {', '.join(found)}." if found else ""
    return f"where={condition}: none of the {len(runs.table)} runs meets it.{there}"
