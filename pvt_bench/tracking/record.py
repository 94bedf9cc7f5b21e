"""A record: the directory of one run. It holds the truth; MLflow is its mirror."""

import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self, SupportsFloat

from filelock import BaseFileLock
from omegaconf import OmegaConf

from pvt_bench.errors import InputError
from pvt_bench.files import remove_unfinished, replace
from pvt_bench.tracking.environment import launch_here, source_version
from pvt_bench.tracking.heartbeat import HEARTBEAT, Heartbeat
from pvt_bench.tracking.lease import Lease, taking, writing
from pvt_bench.tracking.metrics import MetricsFile
from pvt_bench.tracking.reading import (
    STATES,
    find_directory,
    mlflow_runs,
    read_config,
    read_status,
)


class Record:
    """A run's directory, locked against other processes for as long as the record is open.

    `config.yaml` (written once), `status.json` (replaced as a whole) and `metrics.jsonl`
    (appended) are its own; whatever else a run makes lies beside them in `directory`. Open one
    with `Record.open` or `Record.reopen`, in a `with` statement: an exception that leaves it
    while the run is going on turns the state to `failed`, or to `interrupted` for Ctrl-C.
    """

    def __init__(self, directory: Path, lock: BaseFileLock | None, lease: Lease | None) -> None:
        self.directory = directory
        self.results_dir = directory.parents[3]
        self.identity = directory.name.rpartition("-")[2]
        self.metrics = MetricsFile(directory / "metrics.jsonl", lease.token if lease else 0)
        self._lock = lock
        self._lease = lease
        self._heartbeat: Heartbeat | None = None
        self._status: dict[str, Any] = {}
        self._updating = Lock()

    @classmethod
    def open(
        cls,
        config: Mapping[str, Any],
        results_dir: Path | str,
        label: str,
        key: str,
        rerun: bool = False,
    ) -> Self:
        """Find the record of a configuration by its identity, or create it.

        Args:
            config: the resolved configuration, of plain mappings, lists and scalars.
            results_dir: the record lies in `results_dir/runs/<label>-<identity>`.
            label: for people only: `<task>/<dataset>/<model and what is special>-seed<k>`.
            key: the identity of the run; see `pvt_bench.identity`.
            rerun: remove what is there and start over. The MLflow run it had is listed in the
                status as `superseded`.

        Raises:
            InputError: another process has this record open, or `results_dir` cannot be written.
        """
        results_dir = Path(results_dir).expanduser().resolve()
        with taking(results_dir, key) as (lock, lease):
            record = cls(find_directory(results_dir, label, key), lock, lease)
            record._prepare(config, rerun)
        return record

    @classmethod
    def reopen(cls, directory: Path | str) -> Self:
        """Open the record in `directory`, as a queued job or a later look at the run does.

        Raises:
            InputError: there is no record, or another process has it open.
        """
        directory = Path(directory).expanduser().resolve()
        if not (directory / "status.json").exists():
            raise InputError(f"{directory} is not a record: it holds no status.json.")
        results_dir, key = directory.parents[3], directory.name.rpartition("-")[2]
        with taking(results_dir, key) as (lock, lease):
            record = cls(directory, lock, lease)
            record._load()
        return record

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as it was frozen when the record was created."""
        return read_config(self.directory)

    @property
    def status(self) -> dict[str, Any]:
        """The content of `status.json`; change it with `update`."""
        return dict(self._status)

    def check_lease(self) -> None:
        """Raise TakenOver where another process has taken over the run; called before each write
        of what belongs to it."""
        with self._writing():
            pass

    def update(self, **fields: Any) -> None:
        """Set fields of `status.json`; `updated` is set with them."""
        if fields.get("state", STATES[0]) not in STATES:
            raise ValueError(f"state must be one of {STATES}, not {fields['state']!r}")
        # The training and the mirror's thread both have something to note.
        with self._updating, self._writing():
            self._status |= {**fields, "updated": _now()}
            replace(self.directory / "status.json", json.dumps(self._status, indent=2).encode())

    def begin(self) -> None:
        """Note that this process now runs the run: one more attempt, here, from this commit."""
        self.update(
            state="running",
            attempt=self._status["attempt"] + 1,
            started=_now(),
            host=socket.gethostname(),
            pid=os.getpid(),
            commit=source_version(),
            launch={**(self._status.get("launch") or {}), **launch_here()},
            error=None,
        )
        held = self._lease.is_held if self._lease else lambda: True
        self._heartbeat = Heartbeat(self.directory / HEARTBEAT, held)

    def log(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Append one point to `metrics.jsonl`."""
        with self._writing():
            self.metrics.append(step, values)

    def cut(self, step: int) -> None:
        """Drop the points after `step`: a resume goes back to its checkpoint's step."""
        with self._writing():
            self.metrics.cut(step)

    def close(self) -> None:
        """Let other processes open the record."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is not None and self._status["state"] == "running":
                state = "failed" if isinstance(error, Exception) else "interrupted"
                # On a full disk the first error is the one to report.
                with suppress(InputError):
                    self.update(state=state, error=_one_line(error))
        finally:
            self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with writing(self.results_dir):
            if self._lease is not None:
                self._lease.check()
            yield

    def _prepare(self, config: Mapping[str, Any], rerun: bool) -> None:
        superseded: list[str] = []
        status_file = self.directory / "status.json"
        if rerun and self.directory.exists():
            superseded = mlflow_runs(self.directory)
            self._remove()
        self.directory.mkdir(parents=True, exist_ok=True)
        frozen = self.directory / "config.yaml"
        if not frozen.exists():
            replace(frozen, OmegaConf.to_yaml(OmegaConf.create(dict(config))).encode())
        if status_file.exists():
            self._load()
        else:
            # To the microsecond: MLflow's run is found by it, and a rerun has one of its own.
            created = datetime.now(UTC).isoformat()
            self.update(state="queued", created=created, attempt=0, superseded=superseded)

    def _load(self) -> None:
        self._status = read_status(self.directory)
        self.metrics.repair()
        remove_unfinished(self.directory)

    def _remove(self) -> None:
        # Renamed first: a removal that is killed halfway must not leave a record to resume.
        removed = self.results_dir / "runs" / ".removed" / self.identity
        shutil.rmtree(removed, ignore_errors=True)
        removed.parent.mkdir(exist_ok=True)
        self.directory.replace(removed)
        shutil.rmtree(removed)


class Follower(Record):
    """A run's record as its processes beside the first one have it: they write nothing."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, None, None)
        self._status = read_status(directory)

    def update(self, **fields: Any) -> None:
        """Keep fields for this process alone."""
        self._status |= fields

    def begin(self) -> None:
        """The first process notes the attempt."""

    def log(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """The first process writes the points."""

    def cut(self, step: int) -> None:
        """The first process cuts the points."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
