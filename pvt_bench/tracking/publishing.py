"""What MLflow is told of a run beside its points, kept in the record to be told again."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any, Self

from pvt_bench.errors import InputError
from pvt_bench.files import replace
from pvt_bench.tracking.addresses import without_password

FILE = "mlflow.json"
DESCRIPTION = "description.md"
# Tags of runs: the record that one mirrors, what the run is, the run that took its place, and of an
# input its split.
RECORD_TAG = "pvt_bench.record"
IDENTITY_TAG = "identity"
SUPERSEDED_TAG = "superseded_by"
CONTEXT_TAG = "mlflow.data.context"
# What MLflow's page shows as the description of a run or an experiment, and as a run's source.
NOTE_TAG = "mlflow.note.content"
SOURCE_TAG, SOURCE_TYPE_TAG = "mlflow.source.name", "mlflow.source.type"
COMMIT_TAG, USER_TAG = "mlflow.source.git.commit", "mlflow.user"
# How a run stands and why it failed, and the command that it was started by.
STATE_TAG, ERROR_TAG, COMMAND_TAG = "state", "error", "command"
# Costs of a scored network by part. With it, only the main ones are metrics in MLflow.
COSTS = "costs.csv"
# What MLflow gets of a record, where it is there.
ARTIFACTS = (
    COSTS,
    "config.yaml",
    "environment.json",
    "predictions.json",
    "predictions.csv",
    "per_class.csv",
    "confusion.csv",
    "precision_recall.csv",
)
FOLDERS = ("pictures", "predictions")
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Presentation:
    """How a run is shown in MLflow.

    datasets: of what was read, each with `name`, `digest`, `source` and `context`, its split.
    weights: whether MLflow gets the weights too; headline: the run's main metrics.
    """

    experiment: str
    name: str
    params: dict[str, Any]
    tags: dict[str, Any]
    datasets: list[dict[str, str]] = field(default_factory=list)
    weights: bool = False
    headline: list[str] = field(default_factory=list)

    def write(self, directory: Path) -> None:
        """Keep it in a record."""
        replace(directory / FILE, json.dumps(asdict(self), indent=2).encode())

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """What a record keeps; None where the run never began.

        Raises:
            InputError: the file is damaged.
        """
        path = directory / FILE
        if not path.exists():
            return None
        try:
            shown = cls(**json.loads(path.read_bytes()))
            kinds = (shown.experiment, str), (shown.params, dict), (shown.tags, dict)
            if not all(isinstance(value, kind) for value, kind in (*kinds, (shown.name, str))):
                raise TypeError("its fields are of other kinds")
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path} is damaged ({error}). Delete it: the same command writes it anew."
            ) from error
        return shown

    @classmethod
    def set_datasets(cls, directory: Path, datasets: list[dict[str, str]]) -> None:
        """Set what a record says was read, where it says anything yet."""
        shown = cls.read(directory)
        if shown is not None:
            replace_fields(shown, datasets=datasets).write(directory)


def source_tags(typed: Sequence[str]) -> dict[str, str]:
    """Tags that say what started a run: the command as it was typed, its passwords hidden."""
    command = without_password(shlex.join(["python", "-m", "pvt_bench", *typed]))
    return {COMMAND_TAG: command, SOURCE_TAG: "python -m pvt_bench", SOURCE_TYPE_TAG: "LOCAL"}


def main_metrics(mode: str, headline: Sequence[str]) -> list[str]:
    """The metrics of a run that are looked at first; headline: the task's scores."""
    if mode == "speed":
        return ["speed/latency_ms", "speed/images_per_s"]
    scores = [] if mode == "cost" else [f"val/{name}" for name in headline]
    return [*scores, "cost/params_m", "cost/gflops"]
