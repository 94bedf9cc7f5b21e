"""One table of the settings: which make a run what it is, which its network, which its protocol.

The identity of a run, the report's tables and the rows of published tables all read it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pvt_bench.config.schema import VIEWS, Config, Mode, plain

# Raise it where two runs of today would be told apart, or taken together, in another way.
VERSION = 2
# Hexadecimal digits of an identity.
LENGTH = 10

COSTS, SPEEDS, TRAININGS, TESTS = (Mode(name) for name in ("cost", "speed", "train", "test"))
SCORES = (TRAININGS, TESTS)
ALL = (*SCORES, COSTS, SPEEDS)
NEVER: tuple[Mode, ...] = ()


class Role(NamedTuple):
    """What a setting counts for.

    modes: those whose result it can change; network: costs and speeds depend on it; protocol: runs
    must share it to share a table; row: a run of a published table's row must have it as published.
    """

    modes: tuple[Mode, ...]
    network: bool = False
    protocol: bool = False
    row: bool = False


# Dotted keys, each for everything below it that has no line of its own.
ROLES = {
    "mode": Role(ALL, protocol=True),
    "model": Role(ALL, network=True, row=True),
    "model.weights": Role((TRAININGS,)),  # by the digest of their file
    "task": Role(ALL, row=True),
    "task.name": Role(ALL, network=True, protocol=True, row=True),
    "task.revision": Role(SCORES, protocol=True, row=True),  # of what is learnt, not of costs
    "task.view": Role(ALL, protocol=True, row=True),
    "task.dataset": Role(NEVER),  # which data the task was published for
    "task.network": Role(ALL, network=True, row=True),
    "task.protocol": Role(ALL, network=True, protocol=True, row=True),
    "task.module": Role(ALL, protocol=True, row=True),
    "freeze": Role(ALL, network=True, row=True),
    "cost": Role((COSTS,)),
    "speed": Role((SPEEDS,), protocol=True),
    "dataset": Role(SCORES, protocol=True, row=True),
    "dataset.root": Role(NEVER),  # a place; what lies there counts by its fingerprint
    "dataset.index": Role(NEVER),  # likewise, of what was read before
    "schedule": Role((TRAININGS,), row=True),
    "schedule.name": Role((TRAININGS,), protocol=True, row=True),
    "trainer": Role((*SCORES, SPEEDS)),
    "trainer.workers": Role(NEVER),  # randomness comes from seed, epoch and index
    "trainer.eval_batch_size": Role(NEVER),  # each image is scored by itself
    "trainer.accelerator": Role(NEVER),  # the same arithmetic up to rounding
    "trainer.devices": Role(NEVER),  # the batch size is that of all devices together
    "trainer.num_nodes": Role(NEVER),  # likewise
    "trainer.log_every": Role(NEVER),
    "trainer.checkpoint_every": Role(NEVER),  # a resumed run continues exactly
    "seed": Role((TRAININGS,)),
    "weights": Role(SCORES),  # by the digest of their file
    "content": Role(SCORES, protocol=True),  # in the report: digests of the data
    "launcher": Role(NEVER),
    "tracking": Role(NEVER),
    "results_dir": Role(NEVER),
    "report": Role(NEVER),
    "rerun": Role(NEVER),
    "old_records": Role(NEVER),
}
# Files that count by their content: where one is set, its digest must be given.
DIGESTED = ("weights", "model.weights")
# Keys that records of before lack, with the value that all runs had.
ABSENT: dict[str, Any] = {"dataset.exif": "apply", "dataset.bits": None}


@lru_cache(1 << 12)
def role(key: str) -> Role:
    """The role of a dotted key: that of the longest line of ROLES which it lies below.

    A key that no line is for counts: an old record may hold what is no setting any more.
    """
    while key not in ROLES:
        key, dot, _ = key.rpartition(".")
        if not dot:
            return Role(ALL)
    return ROLES[key]


def counts(key: str, mode: Mode | None = None) -> bool:
    """Whether a key can change the result of a run of this mode, or of any."""
    modes = role(key).modes
    return key not in DIGESTED and (mode in modes if mode else bool(modes))


def of_other_view(key: str, view: object) -> bool:
    """Whether a dotted key sets up a view of the dataset that a task of this view does not read."""
    group, _, below = key.partition(".")
    name, dot, _ = below.partition(".")
    return bool(dot) and group == "dataset" and name in VIEWS and name != view


def read_keys(config: Config) -> dict[str, Any]:
    """The part of the configuration that the run's mode reads, plain and resolved."""
    everything, mode = plain(config), Mode(config.mode)
    kept = {key: everything[key] for key in ROLES if key in everything and mode in role(key).modes}
    if mode not in role("model.weights").modes:
        kept["model"] = {**kept["model"], "weights": None}
    if mode not in role("task.revision").modes:
        kept["task"] = {key: value for key, value in kept["task"].items() if key != "revision"}
    return kept


def identity(
    keys: Mapping[str, Any], content: Mapping[str, str], defaults: Mapping[str, Any]
) -> str:
    """Hash what can change the result of a run, as far as it differs from the code's defaults.

    A new option with a default, a class that moves, and a default that a file of conf/ repeats
    leave the identities of all runs as they are. Neither the order of keys matters nor whether a
    whole number is written as `1` or `1.0`; `true` is not `1`.

    Args:
        keys: what `read_keys` gives.
        content: digests of what the configuration names by path, e.g. `{"weights": sha256}`, and
            of anything outside it that counts, e.g. the device in a measurement of speed.
        defaults: by dotted key, those of dataclasses and of the classes that are built.

    Returns:
        The first LENGTH hexadecimal digits of a SHA-256.

    Raises:
        ValueError: the configuration names weights and `content` has no digest of them.
    """
    leaves = {key: canonical(value) for key, value in flatten(keys)}
    _check_digests(leaves, content)
    counted = {
        key: _without_module(value) if key.endswith("._target_") else value
        for key, value in leaves.items()
        if counts(key) and (key not in defaults or value != canonical(defaults[key]))
    }
    return _hash({"version": VERSION, "config": counted, "content": dict(content)})


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with their dotted keys."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def canonical(value: Any) -> Any:
    """A value as JSON would hold it, the same for `8` and `8.0`, for a list and a tuple."""
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def first_identity(keys: Mapping[str, Any], content: Mapping[str, str]) -> str:
    """The identity of version 1, which hashed every default and the path of every class.

    keys: as they are in the record, whose directory is named by it.
    """
    leaves = {key: canonical(value) for key, value in flatten(keys)}
    _check_digests(leaves, content)
    counted = {
        key: value
        for key, value in leaves.items()
        if counts(key) and not (key in ABSENT and value == ABSENT[key])
    }
    return _hash({"config": counted, "content": dict(content)})


def _check_digests(leaves: Mapping[str, Any], content: Mapping[str, str]) -> None:
    for key in DIGESTED:
        if leaves.get(key) is not None and key not in content:
            raise ValueError(f"{key}={leaves[key]} is set, but content[{key!r}] is missing")


def _without_module(target: Any) -> Any:
    """A class of ours without the module that it lies in; one of another package as it is."""
    text = str(target)
    return text.rpartition(".")[2] if text.startswith("pvt_bench.") else text


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
