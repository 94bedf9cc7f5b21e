"""What makes two runs the same run."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

# Dotted keys, each with everything below it, that cannot change the result of a run.
EXCLUDED = (
    "hydra",  # how the command was composed; the composed values themselves count
    "results_dir",  # where the outcome is written
    "tracking",  # the mirror only copies what the record holds
    "launcher",  # where and how the process is started
    "rerun",  # asks to start over, with the same settings
    "dataset.root",  # a place; what lies there counts as content
    "dataset.index",  # a place as well, of what was read of it before
    "weights",  # likewise
    "model.weights",  # likewise
    "loader.workers",  # randomness comes from seed, epoch and index, not from the worker
    "trainer.workers",  # likewise
    "trainer.eval_batch_size",  # each image is scored by itself
    "trainer.accelerator",  # the same arithmetic up to rounding
    "trainer.devices",  # the batch size is global, whatever the number of devices
    "trainer.num_nodes",  # likewise
    "trainer.strategy",  # likewise
    "trainer.log_every",  # how often numbers are written down
    "trainer.checkpoint_every",  # a resume continues exactly where the checkpoint was taken
)
# Keys that came later, with the value that all runs had before: at that value they do not count.
LATER = {"dataset.exif": "apply", "dataset.bits": None}
# Paths that a run may be given: where one is set, the digest of the file must be given instead.
DIGESTED = ("weights", "model.weights")


def identity(config: Mapping[str, Any], content: Mapping[str, str]) -> str:
    """Hash everything that can change the result of a run, and nothing else.

    The order of keys does not matter, and a whole number counts the same written as `1` or `1.0`;
    `true` is not `1`.

    Args:
        config: the resolved configuration, of plain mappings, lists and scalars.
        content: digests of what the configuration names by path, e.g. `{"weights": sha256}`, and
            of anything outside it that counts, e.g. the device in a measurement of speed.

    Returns:
        The first 10 hexadecimal digits of a SHA-256.

    Raises:
        ValueError: the configuration names weights and `content` has no digest of them.
    """
    leaves = dict(_leaves(config))
    for key in DIGESTED:
        if leaves.get(key) is not None and key not in content:
            raise ValueError(f"{key}={leaves[key]} is set, but content[{key!r}] is missing")
    counted = {
        key: value
        for key, value in leaves.items()
        if not _excluded(key) and LATER.get(key, ...) != value
    }
    text = json.dumps({"config": counted, "content": dict(content)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _canonical(value)


def _excluded(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in EXCLUDED)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
