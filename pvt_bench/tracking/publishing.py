"""What MLflow is told of a run beside its points, kept in the record to be told again."""

import json
from dataclasses import asdict, dataclass, field
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from pvt_bench.errors import InputError
from pvt_bench.escaping import markdown
from pvt_bench.files import replace

FILE = "mlflow.json"
DESCRIPTION = "description.md"
# Tags of runs: the record that one mirrors, the run that took its place, and of an input its split.
RECORD_TAG = "pvt_bench.record"
SUPERSEDED_TAG = "superseded_by"
CONTEXT_TAG = "mlflow.data.context"
# What MLflow gets of a record, where it is there.
ARTIFACTS = (
    "config.yaml",
    "environment.json",
    "predictions.json",
    "predictions.csv",
    "per_class.csv",
    "confusion.csv",
    "precision_recall.csv",
)
FOLDERS = ("pictures", "predictions")


@dataclass(frozen=True)
class Presentation:
    """How a run is shown in MLflow.

    datasets: of what was read, each with `name`, `digest`, `source` and `context`, its split.
    """

    experiment: str
    name: str
    params: dict[str, Any]
    tags: dict[str, Any]
    datasets: list[dict[str, str]] = field(default_factory=list)

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


def description(directory: Path) -> str:
    """The run's description in Markdown, with its pictures; `{run_id}` stands for the run's id."""
    path = directory / DESCRIPTION
    text = path.read_text() if path.exists() else ""
    for picture in sorted((directory / "pictures").glob("*.png")):
        address = f"get-artifact?path=pictures/{quote(picture.name)}&run_uuid={{run_id}}"
        title = markdown(picture.stem.replace("_", " "))
        text += f"\n**{title}**\n\n![{markdown(picture.stem)}]({address})\n"
    return text
