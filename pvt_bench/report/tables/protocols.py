"""Which runs may share a table, and which are the same but for their seed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from pvt_bench.identity import DIGESTED, counts
from pvt_bench.report.sources.runs import Runs

KINDS = {"train": "score", "test": "score", "cost": "cost", "speed": "speed"}
# A score belongs to data, schedule and test; a cost and a speed to the network and its input.
PROTOCOL = ("mode", "task.name", "task.revision", "task.view", "schedule.name", "length")
PROTOCOL_GROUPS = ("task.module.", "task.protocol.", "dataset.", "content.", "speed.")
SPEED_GROUPS = ("speed.", "device")
# What makes two networks the same, as far as cost and speed go.
NETWORK = ("task.name",)
NETWORK_GROUPS = ("model.", "task.network.", "task.protocol.", "freeze.")
# Neither tells rows apart: the second says how a cost was counted, not what it is.
NEVER_ROWS = ("seed", "model.name", "mode", "cost.fvcore")


@dataclass(frozen=True)
class Prepared:
    """Runs with three more columns.

    `kind`: of the figures that a run is for; `length`: of its training, in images or epochs;
    `network`: a number, equal for runs of the same network.
    """

    table: pd.DataFrame
    params: tuple[str, ...]

    def protocol(self, kinds: Collection[str]) -> list[str]:
        """The keys whose values runs of these kinds must share to share a table."""
        keys = [*PROTOCOL, *(key for key in self.params if key.startswith(PROTOCOL_GROUPS))]
        keys = [key for key in keys if key in self.table and counts(key)]
        return [*keys, "device"] if "speed" in kinds else keys

    def speed_conditions(self) -> list[str]:
        """The keys of what a speed depends on, beside the network."""
        return [key for key in (*self.params, "device") if key.startswith(SPEED_GROUPS)]


def prepare(runs: Runs) -> Prepared:
    """Runs with their kind, length and network."""
    table = runs.table
    network = [key for key in runs.params if key in NETWORK or key.startswith(NETWORK_GROUPS)]
    network = [key for key in network if counts(key)]
    more = pd.DataFrame(
        {
            "kind": table["mode"].map(KINDS).fillna("score"),
            "length": _length(table),
            "network": table.groupby(network, dropna=False, sort=False).ngroup(),
        },
        index=table.index,
    )
    return Prepared(pd.concat([table, more], axis="columns"), (*runs.params, "length"))


def row_keys(part: pd.DataFrame, params: Sequence[str], protocol: Sequence[str]) -> list[str]:
    """The keys that tell runs of one model apart, but for their seed, in the order of params."""
    counted = [key for key in params if is_setting(key) and key not in protocol]
    varying = differing(part, counted)
    if not varying:
        return []
    within = part.groupby("model.name", dropna=False)[varying].nunique(dropna=False).max() > 1
    return [key for key in varying if within[key]]


def is_setting(key: str) -> bool:
    """Whether runs that differ in a key are no seeds of one row."""
    return key not in NEVER_ROWS and (counts(key) or key in DIGESTED)


def differing(part: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Those of the keys that have more than one value."""
    values = part[list(keys)].nunique(dropna=False)
    return [key for key in keys if values[key] > 1]


def _length(table: pd.DataFrame) -> pd.Series:
    """How long a run trains: `12 epochs` or `11200 images`; missing where it does not train."""
    keys = ["schedule.epochs", "schedule.steps", "schedule.batch_size"]
    texts = table.reindex(columns=keys)
    epochs, steps, batch = (pd.to_numeric(texts[key], errors="coerce") for key in keys)
    text = (steps * batch).map("{:.0f} images".format, na_action="ignore")
    return text.where(epochs.isna(), epochs.map("{:g} epochs".format, na_action="ignore"))
