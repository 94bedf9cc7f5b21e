"""Groups of runs that differ only in their seeds: ten thousand rows per second."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from pvt_bench.report.tables.published import Figure
from pvt_bench.report.tables.rows import Origin, Value

# Index of a run in `Runs.table`.
Run = Hashable


class Group(NamedTuple):
    """Runs of one row. texts: values of the keys; values: by name of the figure."""

    texts: tuple[str, ...]
    members: list[Run]
    values: dict[str, Value]


class Found(NamedTuple):
    """A figure that another run measured on the same network."""

    value: Value
    run: Run


def group(part: pd.DataFrame, keys: Sequence[str], figures: Mapping[str, Figure]) -> list[Group]:
    """Groups of runs with equal keys, in order of appearance."""
    texts = part[list(keys)].astype(object).where(part[list(keys)].notna(), "").astype(str)
    number = texts.groupby(list(keys), sort=False).ngroup()
    members = part.index.to_series().groupby(number.to_numpy()).agg(list)
    firsts = texts[~number.duplicated()].itertuples(index=False, name=None)
    return [
        Group(first, runs, values)
        for first, runs, values in zip(firsts, members, _values(part, number, figures), strict=True)
    ]


def by_network(
    runs: pd.DataFrame, kind: str, figures: Mapping[str, Figure]
) -> dict[tuple[int, str], Found]:
    """Newest figures of a kind, by number of the network and name of the figure."""
    newest = runs[runs["kind"] == kind].sort_values("started")
    found = {}
    for name, figure in figures.items():
        if figure.kind == kind and figure.metric in newest:
            measured = newest[newest[figure.metric].notna()]
            for run, network, number in measured[["network", figure.metric]].itertuples(name=None):
                found[network, name] = Found(Value(number * figure.factor, n=1), run)
    return found


def find_origins(table: pd.DataFrame) -> dict[Run, Origin]:
    """Origin of each run's numbers."""
    columns = ["kind", "identity", "name", "seed", "state", "commit", "started", "host", "device"]
    about = table.reindex(columns=[*columns, "run_id", "link"])
    about["identity"] = about["identity"].fillna(about["run_id"])
    about["started"] = about["started"].dt.strftime("%Y-%m-%d")
    about = about.astype(object).where(about.notna(), "").astype(str)
    scored = about["kind"] == "score"
    about["seed"] = about["seed"].where(scored, "")
    return {
        run: Origin(
            kind=row["kind"],
            seed=row["seed"],
            identity=row["identity"],
            name=row["name"],
            state=row["state"],
            commit=row["commit"],
            date=row["started"],
            machine=", ".join(word for word in (row["host"], row["device"]) if word),
            link=row["link"],
            run=run,
        )
        for run, row in zip(about.index, about.to_dict("records"), strict=True)
    }


def _values(
    part: pd.DataFrame, number: pd.Series, figures: Mapping[str, Figure]
) -> list[dict[str, Value]]:
    metrics = part.reindex(columns=list(dict.fromkeys(each.metric for each in figures.values())))
    groups = metrics.groupby(number.to_numpy())
    counts, means, deviations = groups.count(), groups.mean(), groups.std(ddof=1)
    one_value = groups.nunique() == 1
    values: list[dict[str, Value]] = [{} for _ in range(len(counts))]
    for name, figure in figures.items():
        columns = (counts, means, deviations, one_value)
        rows = zip(*(column[figure.metric].tolist() for column in columns), strict=True)
        for place, (n, mean, deviation, one) in enumerate(rows):
            # A cost is counted, not measured: all runs agree, so one is enough.
            if figure.kind == "cost" and one:
                n, deviation = 1, math.nan
            values[place][name] = Value(mean * figure.factor, deviation * figure.factor, n)
    return values
