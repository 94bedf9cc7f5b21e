"""Which cells a sweep has: `results/sweeps/<name>/sweep.json`, without torch."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pvt_bench.errors import InputError, nearest
from pvt_bench.files import replace
from pvt_bench.screen import warn
from pvt_bench.tracking.record import read_status

FILE = "sweep.json"


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    name: what was swept, for people; place: the record's directory, from `results_dir` on;
    experiment: in MLflow; headline: the metrics that its row shows first.
    """

    name: str
    place: str
    experiment: str
    mode: str
    headline: list[str]


@dataclass(frozen=True)
class Sweep:
    """Cells that were started by one command.

    typed: the command's words; parents: the runs that hold the cells in MLflow, by experiment.
    """

    name: str
    results_dir: Path
    typed: list[str]
    cells: list[Cell]
    parents: dict[str, str] = field(default_factory=dict)
    uri: str = ""

    @property
    def directory(self) -> Path:
        """Where the sweep's own files are."""
        return self.results_dir / "sweeps" / self.name

    def record(self, cell: Cell) -> Path:
        """The directory of a cell's record."""
        return self.results_dir / cell.place

    def status(self, cell: Cell) -> dict[str, Any]:
        """The status of a cell's record; of one that is gone or unreadable, that it is missing."""
        directory = self.record(cell)
        if not (directory / "status.json").exists():
            return {"state": "missing", "error": f"{directory} is gone", "result": None}
        try:
            return read_status(directory)
        except InputError as error:
            return {"state": "missing", "error": str(error), "result": None}

    def _is_sound(self) -> bool:
        texts = [self.name, self.uri, *self.typed, *self.parents.keys(), *self.parents.values()]
        for cell in self.cells:
            texts += [cell.name, cell.place, cell.experiment, cell.mode, *cell.headline]
        return all(isinstance(text, str) for text in texts)

    def write(self) -> None:
        """Write the sweep's file as a whole."""
        self.directory.mkdir(parents=True, exist_ok=True)
        values = asdict(self)
        del values["results_dir"]
        replace(self.directory / FILE, json.dumps(values, indent=2).encode())

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The sweep in a directory."""
        try:
            values = json.loads((directory / FILE).read_bytes())
            cells = [Cell(**each) for each in values.pop("cells")]
            sweep = cls(results_dir=directory.parents[1], cells=cells, **values)
            if not sweep._is_sound():
                raise TypeError("its fields are of other kinds")
            return sweep
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{directory / FILE} is not the file of a sweep ({error}). Type the command of the "
                "sweep again: it is written anew, and nothing that is finished runs again."
            ) from error


def sweep_name(title: str, places: Sequence[str]) -> str:
    """A name that the same cells always have, and others never."""
    cells = "\n".join(sorted(place.rpartition("-")[2] for place in places))
    return f"{title}-{hashlib.sha256(cells.encode()).hexdigest()[:6]}"


def find_sweeps(results_dir: Path) -> list[Path]:
    """The directories of all sweeps, the latest last."""
    found = results_dir.glob(f"sweeps/*/{FILE}")
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def read_sweeps(results_dir: Path) -> tuple[list[Sweep], int]:
    """All sweeps, the latest last, and how many are damaged, each of which is warned of."""
    sweeps, damaged = [], 0
    for directory in find_sweeps(results_dir):
        try:
            sweeps.append(Sweep.read(directory))
        except InputError as error:
            warn(str(error))
            damaged += 1
    return sweeps, damaged


def find_sweep(results_dir: Path, name: str) -> Path:
    """The sweep of that name, which may be given without its last part."""
    names = {path.name: path for path in find_sweeps(results_dir)}
    matching = [path for each, path in names.items() if name in (each, each.rpartition("-")[0])]
    if not matching:
        raise InputError(
            f"There is no sweep {name} in {results_dir / 'sweeps'}. {nearest(name, names)}"
        )
    return matching[-1]
