"""Cells of a sweep, listed in `results/sweeps/<name>/sweep.json`, and how they stand; no torch."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pvt_bench.errors import InputError, nearest
from pvt_bench.files import replace
from pvt_bench.launching.jobs import GONE, Job, ask, job_key
from pvt_bench.launching.jobs import UNKNOWN as NO_ANSWER
from pvt_bench.screen import warn
from pvt_bench.tracking.heartbeat import HEARTBEAT, is_fresh
from pvt_bench.tracking.publishing import main_metrics
from pvt_bench.tracking.reading import DAMAGED, LOG, find_records, read_config, read_status

FILE = "sweep.json"
DONE, RUNNING, QUEUED, UNKNOWN = "done", "running", "queued", "unknown"
STOPPED, FAILED, LOST = "stopped", "failed", "lost"
# These change by themselves; the others wait for the command to be typed again.
UNDER_WAY = (RUNNING, QUEUED, UNKNOWN)
FAILURES = (FAILED, LOST, STOPPED)
LAST_LINES = 20


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

    @property
    def metrics(self) -> list[str]:
        """The main metrics of the cell's run."""
        return main_metrics(self.mode, self.headline)


@dataclass(frozen=True)
class Sweep:
    """Cells that were started by one command.

    typed: the command's words; parents: the runs that hold the cells in MLflow, by experiment;
    swept: the dotted keys that differ between the cells.
    """

    name: str
    results_dir: Path
    typed: list[str]
    cells: list[Cell]
    parents: dict[str, str] = field(default_factory=dict)
    uri: str = ""
    swept: list[str] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """Where the sweep's own files are."""
        return self.results_dir / "sweeps" / self.name

    def record(self, cell: Cell) -> Path:
        """The directory of a cell's record."""
        return self.results_dir / cell.place

    def status(self, cell: Cell) -> dict[str, Any]:
        """The status of a cell's record; "missing" where it is gone or unreadable."""
        directory = self.record(cell)
        try:
            if (directory / "status.json").exists():
                return read_status(directory)
            error = f"{directory} is gone"
        except InputError as damage:
            error = str(damage)
        return {"state": "missing", "error": error, "result": None}

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
            if not all(isinstance(text, str) for text in sweep._texts()):
                raise TypeError("its fields are of other kinds")
            return sweep
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{directory / FILE} is not the file of a sweep ({error}). Run the command of the "
                "sweep again: it is written anew, and nothing that is finished runs again."
            ) from error

    def _texts(self) -> list[str]:
        texts = [
            self.name,
            self.uri,
            *self.typed,
            *self.swept,
            *self.parents.keys(),
            *self.parents.values(),
        ]
        for cell in self.cells:
            texts += [cell.name, cell.place, cell.experiment, cell.mode, *cell.headline]
        return texts


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
            f"There is no sweep {name} in {results_dir / 'sweeps'}. "
            f"{nearest(name, {each.rpartition('-')[0] for each in names})}"
        )
    return matching[-1]


def single_runs(results_dir: Path, sweeps: Sequence[Sweep]) -> Sweep:
    """The runs that belong to none of the sweeps, the latest first, as if they were one."""
    in_sweeps = {sweep.record(cell) for sweep in sweeps for cell in sweep.cells}
    single = [path for path in find_records(results_dir) if path not in in_sweeps]
    single.sort(key=lambda path: (path / "status.json").stat().st_mtime, reverse=True)
    return Sweep("", results_dir, [], [_as_cell(path, results_dir) for path in single])


def _as_cell(record: Path, results_dir: Path) -> Cell:
    place = record.relative_to(results_dir)
    task, dataset, name = place.parts[-3:]
    name = f"{task} {name.rpartition('-')[0]}"
    try:
        config = read_config(record)
        return Cell(name, str(place), task, config["mode"], config["task"]["headline"])
    except (*DAMAGED, KeyError):
        return Cell(name, str(place), task, dataset, [])


@dataclass(frozen=True)
class State:
    """word: one of those above; why: of one that waits, is unknown or went wrong; job: SLURM's last
    word."""

    cell: Cell
    word: str
    why: str
    status: Mapping[str, Any]
    job: Job

    @property
    def launch(self) -> dict[str, Any]:
        """What the record notes of the job that runs the cell; empty where there was none."""
        return self.status.get("launch") or {}


def find_log(sweep: Sweep, state: State) -> Path | None:
    """What a cell printed: the log of its job, or the one in its record."""
    job = state.launch.get("log")
    logs = [Path(job)] if job else []
    return next((path for path in [*logs, sweep.record(state.cell) / LOG] if path.exists()), None)


def look(sweep: Sweep) -> list[State]:
    """How all cells stand now; the scheduler is asked once."""
    statuses = [sweep.status(cell) for cell in sweep.cells]
    launches = [s["launch"] for s in statuses if s.get("launch") and s["state"] != "finished"]
    jobs = ask(launches)
    states = []
    for cell, status in zip(sweep.cells, statuses, strict=True):
        launch = status.get("launch")
        job = jobs.get(job_key(launch), Job()) if launch else Job()
        word, why = _word(status, job, is_fresh(sweep.record(cell) / HEARTBEAT))
        states.append(State(cell, word, why, status, job))
    return states


def _word(status: Mapping[str, Any], job: Job, beats: bool) -> tuple[str, str]:
    state, error = status["state"], status.get("error") or ""
    if state == "finished":
        return DONE, ""
    # A job that SLURM has requeued waits again, whatever its last attempt has noted.
    if job.state == "PENDING":
        return QUEUED, job.reason
    if state == "running" and beats and (job.alive or not job.state):
        return RUNNING, ""
    if state in ("queued", "interrupted", "running") and job.state == NO_ANSWER:
        return UNKNOWN, f"SLURM does not answer ({job.reason})"
    if state in ("queued", "interrupted") and job.alive:
        return QUEUED, "starting"
    ended = {"failed": FAILED, "interrupted": STOPPED, "missing": LOST}
    return (ended[state], error) if state in ended else (LOST, _how_lost(status, job))


def _how_lost(status: Mapping[str, Any], job: Job) -> str:
    if job.alive:
        return "the job runs, but its process gives no sign of life"
    by_slurm = job.state not in ("", GONE)
    ended = f"the job ended as {job.state}" if by_slurm else "its process is gone"
    if status["state"] != "running":
        ended += " before it could write to the record"
    words = _last_words((status.get("launch") or {}).get("log"))
    return f"{ended}: {words}" if words else ended


def _last_words(log: str | None) -> str:
    """What the scheduler wrote into a job's log at its end: its reason, if it is there at all."""
    if not log or not Path(log).is_file():
        return ""
    lines = Path(log).read_text(errors="replace").splitlines()[-LAST_LINES:]
    errors = [line.strip() for line in lines if "error:" in line.lower()]
    # Of a job killed for its memory, SLURM's state says no more than that it failed.
    about_memory = [line for line in errors if re.search(r"memory|oom", line, re.IGNORECASE)]
    return (about_memory or errors or [""])[-1]
