"""Runs divided into those that share a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pvt_bench.report.tables.protocols import Prepared, differing, row_keys

# Not told apart by: the figures themselves show what was done, and a view is its task's.
SILENT = ("mode", "task.view")


@dataclass(frozen=True)
class Block:
    """Runs that share a table.

    protocol: what all of them share; keys: whose values make a row; joined: runs of other kinds,
    whose costs and speeds belong to those of the same network.
    """

    runs: pd.DataFrame
    protocol: Mapping[str, str]
    keys: Sequence[str]
    joined: pd.DataFrame


def divide(prepared: Prepared, rows: Sequence[str], mixed: bool) -> Iterator[Block]:
    """Scores with the costs and speeds of the same networks, then costs and speeds without.

    rows: the keys of a row, by default the model and what differs within one; mixed: all in one
    block, whatever their protocols.
    """
    parts, joined = _by_kind(prepared)
    for part in [pd.concat(parts)] if mixed else parts:
        protocol = prepared.protocol({*part["kind"]})
        for runs in [part] if mixed else _split(part, protocol):
            apart = differing(runs, protocol)
            own = row_keys(runs, prepared.params, protocol)
            yield Block(
                runs,
                {
                    key: str(runs[key].iloc[0])
                    for key in protocol
                    if key not in apart and runs[key].notna().iloc[0]
                },
                rows or ["model.name", *_telling(runs, apart), *own],
                joined[~joined.index.isin(runs.index)],
            )


def _by_kind(prepared: Prepared) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """The runs that make rows, by kind, and the costs and speeds that join them."""
    table = prepared.table
    score, cost, speed = (table[table["kind"] == kind] for kind in ("score", "cost", "speed"))
    alone = cost[~cost["network"].isin(score["network"])]
    # Speeds under several conditions do not fit one column.
    alike = len(speed.drop_duplicates(prepared.speed_conditions())) == 1
    timed = [*score["network"], *alone["network"]] if alike else []
    parts = [score, alone, speed[~speed["network"].isin(timed)]]
    joined = pd.concat([cost, speed]) if alike else cost
    return [part for part in parts if len(part)], joined


def _split(part: pd.DataFrame, keys: Sequence[str]) -> Iterator[pd.DataFrame]:
    for index in part.groupby(list(keys), dropna=False, sort=False).groups.values():
        yield part.loc[index]


def _telling(runs: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Names first, those keys that tell runs apart which the ones before do not."""
    telling: list[str] = []
    for key in sorted(keys, key=lambda key: not key.endswith(".name")):
        groups = runs.groupby(telling, dropna=False) if telling else [((), runs)]
        if key not in SILENT and any(group[key].nunique(dropna=False) > 1 for _, group in groups):
            telling.append(key)
    return telling
