"""What every source of runs gives: three tables with one index, and the parts of a run."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import pandas as pd

# What is known of a run besides its settings and metrics. `link` is a directory or an address.
INFO = (
    "identity",
    "run_id",
    "experiment",
    "sweep",
    "name",
    "state",
    "started",
    "commit",
    "host",
    "device",
    "link",
)
SWEEPS = ", "  # between the names of a run's sweeps
# Settings of every run, whatever its mode.
ALWAYS = ("mode", "model.name", "task.name")
FINISHED = "finished"
# 8.0 in one place and 8 in another are the same number, in lists as well; 1.0.3 is none.
WHOLE = re.compile(r"(?<![\w.])(-?\d+)\.0(?![\w.])")


@dataclass(frozen=True)
class Loaded:
    """Content of a source: three tables with the same index, one row per run.

    info: the columns INFO; params: what a run was set to, by dotted key, as text; metrics: last
    values by name. left_out: sentences on what the source holds beside.
    """

    info: pd.DataFrame
    params: pd.DataFrame
    metrics: pd.DataFrame
    left_out: tuple[str, ...] = ()


class Source(Protocol):
    """A place that holds runs; a run is named by its index in `Loaded`."""

    place: str

    def load(self) -> Loaded:
        """Read all runs of pvt-bench."""

    def history(self, run: Hashable, metrics: Sequence[str]) -> pd.DataFrame:
        """Metrics by step: the index is the step, with a column per metric logged."""

    def read(self, run: Hashable, name: str) -> str | None:
        """Text of a file of the run; None without one."""

    def file(self, run: Hashable, name: str) -> Path | None:
        """Path of a file of the run; None unless it is on this machine."""


# Thousands of runs have the same few values.
@lru_cache(1 << 16)
def canonical(text: str) -> str:
    """Text of a value, the same for a whole number however it was typed."""
    return WHOLE.sub(r"\1", text)


def content_key(context: str) -> str:
    """Key of the digest of the data read in a context: training, evaluation."""
    return f"content.{context}"
