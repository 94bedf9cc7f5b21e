"""A record: the directory of one run. It holds the truth; MLflow is its mirror."""

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self, SupportsFloat

from filelock import BaseFileLock, FileLock, Timeout
from omegaconf import OmegaConf
from yaml import YAMLError

from pvt_bench.errors import InputError
from pvt_bench.files import remove_unfinished, replace
from pvt_bench.tracking.environment import launch_here, source_version
from pvt_bench.tracking.heartbeat import Heartbeat, is_beating
from pvt_bench.tracking.holder import is_alive, is_this
from pvt_bench.tracking.lease import AlreadyRunning, Lease, describe
from pvt_bench.tracking.metrics import MetricsFile, Point

HEARTBEAT = "heartbeat"
STATES = ("queued", "running", "finished", "failed", "interrupted")
# What every status holds from the start; all else may be missing.
FIELDS = {"state": str, "created": str, "attempt": int}
# Where others are there, they are mappings.
MAPPINGS = ("launch", "mlflow", "result", "measured", "content")
MOMENTS = ("created", "started")
# What reading the configuration of a damaged record raises.
DAMAGED = (OSError, ValueError, TypeError, AttributeError, RecursionError, YAMLError)
# Loader workers inherit the lock and outlive a killed run by some seconds.
ORPHANS_LEAVE_AFTER = 15.0


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
        self._metrics = MetricsFile(directory / "metrics.jsonl", lease.token if lease else 0)
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
        with _taking(results_dir, key) as (lock, lease):
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
        with _taking(results_dir, key) as (lock, lease):
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
        if self._lease is not None:
            with _writing(self.results_dir):
                self._lease.check()

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
            self._metrics.append(step, values)

    def points(self) -> Iterator[Point]:
        """All points of `metrics.jsonl` in the order of logging."""
        return self._metrics.read()

    @property
    def metrics(self) -> MetricsFile:
        """`metrics.jsonl`, for reading."""
        return self._metrics

    def cut(self, step: int) -> None:
        """Drop the points after `step`: a resume goes back to its checkpoint's step."""
        with self._writing():
            self._metrics.cut(step)

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
        with _writing(self.results_dir):
            if self._lease is not None:
                self._lease.check()
            yield

    def _prepare(self, config: Mapping[str, Any], rerun: bool) -> None:
        superseded: list[str] = []
        status_file = self.directory / "status.json"
        if rerun and self.directory.exists():
            superseded = _mlflow_runs(self.directory)
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
        self._metrics.repair()
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


def find_directory(results_dir: Path | str, label: str, key: str) -> Path:
    """Where the record of an identity is, whatever its label was, or where it is to be."""
    runs = Path(results_dir).expanduser().resolve() / "runs"
    parts = [_safe(part) for part in label.split("/")]
    if len(parts) != 3:
        raise ValueError(f"a label has three parts, task/dataset/name: {label!r}")
    found = sorted(runs.glob(f"*/*/*-{key}"))
    return found[0] if found else runs.joinpath(*parts[:2], f"{parts[2]}-{key}")


def find_labelled(results_dir: Path | str, label: str) -> list[Path]:
    """The directories of the records of a label, whatever their identities, sorted."""
    parent, _, name = find_directory(results_dir, label, "x").as_posix().rpartition("/")
    with suppress(OSError):
        return sorted(
            path for path in Path(parent).iterdir() if path.name.rpartition("-")[0] == name[:-2]
        )
    return []


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration that a record was made with, plain; raises one of DAMAGED."""
    config = OmegaConf.to_container(OmegaConf.load(directory / "config.yaml"))
    if not isinstance(config, dict):
        raise ValueError(f"{directory / 'config.yaml'} is not a configuration")
    return {str(key): value for key, value in config.items()}


def find_records(results_dir: Path | str) -> list[Path]:
    """The directories of all records under `results_dir`, sorted; none of them is opened."""
    return sorted(path.parent for path in Path(results_dir).glob("runs/*/*/*/status.json"))


def read_status(directory: Path) -> dict[str, Any]:
    """The content of a record's `status.json`, whoever has the record open.

    Raises:
        InputError: it cannot be read, or is not that of a record as this version knows it.
    """
    status = _read_json(directory / "status.json")
    if wrong := _fault_of(status):
        raise InputError(
            f"{directory / 'status.json'} is not that of a record that this version of pvt-bench "
            f"knows ({wrong}). Use the version that wrote it, move the directory away, or start "
            "the run over: rerun=true."
        )
    return status


def _fault_of(status: Mapping[str, Any]) -> str:
    lacking = [key for key in FIELDS if key not in status]
    if lacking:
        return f"without {', '.join(lacking)}"
    wrong = [key for key, kind in FIELDS.items() if not isinstance(status[key], kind)]
    wrong += [key for key in MAPPINGS if not isinstance(status.get(key) or {}, dict)]
    if not isinstance(status.get("superseded") or [], list):
        wrong.append("superseded")
    if not wrong:
        wrong = [key for key in MOMENTS if not _is_moment(status.get(key))]
        wrong += ["state"] if status["state"] not in STATES else []
    return ", ".join(f"{key}: {str(status[key])[:40]}" for key in wrong)


@contextmanager
def _writing(results_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise InputError(
            f"The results cannot be written to {results_dir} ({what}). Make room there, or "
            "choose a directory that you can write to: type results_dir=PATH, or set the "
            "environment variable PVT_BENCH_RESULTS."
        ) from error


@contextmanager
def _taking(results_dir: Path, key: str) -> Iterator[tuple[BaseFileLock, Lease]]:
    """Take the lock and the lease of a run; the lock is given back where what follows fails."""
    with _writing(results_dir):
        # Outside the record's directory, which a rerun removes while it holds the lock.
        locks = results_dir / "runs" / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lease = Lease(locks / f"{key}.json")
        lock = _acquire(locks / f"{key}.lock", lease)
        try:
            for directory in (results_dir / "runs").glob(f"*/*/*-{key}"):
                _refuse_running(directory, lease)
            lease.take()
            yield lock, lease
        except BaseException:
            lock.release()
            raise


def _acquire(path: Path, lease: Lease) -> BaseFileLock:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=ORPHANS_LEAVE_AFTER if is_alive(lease.last) is False else 0)
    except Timeout:
        raise _already_running(path.stem, lease) from None
    return lock


def _refuse_running(directory: Path, lease: Lease) -> None:
    # A network file system may keep no locks, or for one host only; a heartbeat is seen by all.
    gone_or_own = is_alive(lease.last) is False or is_this(lease.last)
    if not gone_or_own and is_beating(directory / HEARTBEAT):
        raise _already_running(directory.name, lease)


def _already_running(name: str, lease: Lease) -> AlreadyRunning:
    return AlreadyRunning(
        f"The run {name} is already running ({describe(lease.last)}). One process at a time works "
        "on a run: wait for it or stop it, then type the same command again."
    )


def _safe(part: str) -> str:
    # 255 bytes is the usual limit of a file name; hash and temporary suffixes need some of them.
    return re.sub(r"[^\w.,=+-]+", "_", part, flags=re.ASCII).lstrip(".-")[:160] or "_"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds {str(found)[:40]}")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error}). Mend it, or start the run over: rerun=true."
        ) from error
    return found


def _mlflow_runs(directory: Path) -> list[str]:
    """The runs in MLflow that a record had, as far as it can still be read."""
    try:
        status = read_status(directory)
    except InputError:
        return []
    run_id = (status.get("mlflow") or {}).get("run_id")
    return [*(status.get("superseded") or []), *([run_id] if run_id else [])]


def _is_moment(text: object) -> bool:
    try:
        return text is None or datetime.fromisoformat(str(text)).tzinfo is not None
    except ValueError:
        return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
