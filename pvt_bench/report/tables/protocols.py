"""Division of runs into those that share a table, and the keys that tell rows apart."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pvt_bench.identity import DIGESTED, counts, role
from pvt_bench.report.sources.runs import Runs

KINDS = {"train": "score", "test": "score", "cost": "cost", "speed": "speed"}
# Named first where a table tells what its runs share or differ in.
FIRST = ("mode", "task.name", "task.revision", "task.view", "schedule.name", "length")
SPEED_GROUPS = ("speed.", "device")
# Neither tells rows apart: the second says how a cost was counted, not what it is.
NEVER_ROWS = ("seed", "model.name", "mode", "cost.fvcore")
# Not shown as columns: the figures tell the mode, and a view belongs to its task.
SILENT = ("mode", "task.view")


@dataclass(frozen=True)
class Prepared:
    """Runs with three more columns.

    `kind`: of the figures that a run is for; `length`: of its training, in images or epochs;
    `network`: a number, equal for runs of the same network.
    """

    table: pd.DataFrame
    params: tuple[str, ...]

    def protocol(self, kinds: Collection[str]) -> list[str]:
        """Keys in which runs of these kinds must agree to share a table."""
        others = [key for key in self.params if role(key).protocol and counts(key)]
        keys = [key for key in dict.fromkeys([*FIRST, *others]) if key in self.table]
        return [*keys, "device"] if "speed" in kinds else keys

    def speed_conditions(self) -> list[str]:
        """Keys that a speed depends on, besides the network."""
        return [key for key in (*self.params, "device") if key.startswith(SPEED_GROUPS)]


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


def prepare(runs: Runs) -> Prepared:
    """Add kind, length and network to the runs."""
    table = runs.table
    network = [key for key in runs.params if role(key).network and counts(key)]
    more = pd.DataFrame(
        {
            "kind": table["mode"].map(KINDS).fillna("score"),
            "length": _length(table),
            "network": table.groupby(network, dropna=False, sort=False).ngroup(),
        },
        index=table.index,
    )
    return Prepared(pd.concat([table, more], axis="columns"), (*runs.params, "length"))


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


def row_keys(part: pd.DataFrame, params: Sequence[str], protocol: Sequence[str]) -> list[str]:
    """Keys that tell runs of one model apart, without the seed, in the order of params."""
    counted = [key for key in params if is_setting(key) and key not in protocol]
    varying = differing(part, counted)
    if not varying:
        return []
    within = part.groupby("model.name", dropna=False)[varying].nunique(dropna=False).max() > 1
    return [key for key in varying if within[key]]


def is_setting(key: str) -> bool:
    """Whether runs that differ in a key belong to different rows."""
    return key not in NEVER_ROWS and (counts(key) or key in DIGESTED)


def differing(part: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Keys that have more than one value."""
    values = part[list(keys)].nunique(dropna=False)
    return [key for key in keys if values[key] > 1]


def _by_kind(prepared: Prepared) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Runs that make rows, by kind, and the costs and speeds that join them."""
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
    """Keys, names first, that tell runs apart which the keys before do not."""
    telling: list[str] = []
    for key in sorted(keys, key=lambda key: not key.endswith(".name")):
        groups = runs.groupby(telling, dropna=False) if telling else [((), runs)]
        if key not in SILENT and any(group[key].nunique(dropna=False) > 1 for _, group in groups):
            telling.append(key)
    return telling


def _length(table: pd.DataFrame) -> pd.Series:
    """Length of a training: `12 epochs` or `11200 images`; missing for other runs."""
    keys = ["schedule.epochs", "schedule.steps", "schedule.batch_size"]
    texts = table.reindex(columns=keys)
    epochs, steps, batch = (pd.to_numeric(texts[key], errors="coerce") for key in keys)
    text = (steps * batch).map("{:.0f} images".format, na_action="ignore")
    return text.where(epochs.isna(), epochs.map("{:g} epochs".format, na_action="ignore"))
