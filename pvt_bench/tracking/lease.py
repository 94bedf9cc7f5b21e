"""The right to write a record: one process has it, and notices where another one took it."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from pvt_bench.errors import InputError
from pvt_bench.files import replace
from pvt_bench.tracking import holder
from pvt_bench.tracking.heartbeat import HEARTBEAT, is_beating

# Loader workers inherit the lock and outlive a killed run by some seconds.
ORPHANS_LEAVE_AFTER = 15.0


class AlreadyRunning(InputError):
    """Another process works on the run."""


class TakenOver(AlreadyRunning):
    """Another process has taken over the run while this one could not be heard."""


class Lease:
    """A file that says which process writes a record, with a token that each taking raises.

    Locks keep two processes apart on one host. Where the file system does not keep them, and where
    a machine was paused for longer than its heartbeat is waited for, a second process takes the
    run over; `check` is how the first one finds out before it writes anything more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mine: dict[str, Any] = {}

    @property
    def last(self) -> dict[str, Any]:
        """Who took it last, as the file says; empty where there is no such file, or no telling."""
        try:
            found = json.loads(self.path.read_bytes())
        except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def take(self) -> None:
        """Make it this process's."""
        before = self.last.get("token")
        # By the clock, so that it is higher even where the file was lost.
        token = max(int(time.time()), before + 1 if isinstance(before, int) else 0)
        self._mine = {
            **holder.describe(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": token,
            "nonce": secrets.token_hex(8),
        }
        self._write()

    @property
    def token(self) -> int:
        """Higher than that of all who had it before; 0 before it was taken."""
        token: int = self._mine.get("token", 0)
        return token

    def check(self) -> None:
        """Raise TakenOver where another process has taken it since."""
        last = self.last
        if not last:
            # Nobody has taken it: the file was lost, or damaged.
            self._write()
        elif last != self._mine:
            raise TakenOver(
                f"The run {self.path.stem} was taken over by another process ({describe(last)}) "
                "while this one could not be heard. This process stops and has written nothing "
                "since; the other one goes on."
            )

    def is_held(self) -> bool:
        """Whether it is still this process's."""
        return self.last in ({}, self._mine)

    def _write(self) -> None:
        if self.path.is_dir():
            self.path.rename(self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}"))
        replace(self.path, json.dumps(self._mine).encode())


def describe(last: Mapping[str, Any]) -> str:
    """A holder for people: its host, its number, since when."""
    known = {name: last[name] for name in ("pid", "host", "since") if last.get(name)}
    return ", ".join(f"{name} {value}" for name, value in known.items()) or "unknown"


@contextmanager
def writing(results_dir: Path) -> Iterator[None]:
    """Turn the system's errors into ones that say what to type."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise InputError(
            f"The results cannot be written to {results_dir} ({what}). Make room there, or "
            "choose a directory that you can write to: use results_dir=PATH, or set the "
            "environment variable PVT_BENCH_RESULTS."
        ) from error


@contextmanager
def taking(results_dir: Path, key: str) -> Iterator[tuple[BaseFileLock, Lease]]:
    """Take the lock and the lease of a run; the lock is given back where what follows fails."""
    with writing(results_dir):
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
        lock.acquire(timeout=ORPHANS_LEAVE_AFTER if holder.is_alive(lease.last) is False else 0)
    except Timeout:
        raise _already_running(path.stem, lease) from None
    return lock


def _refuse_running(directory: Path, lease: Lease) -> None:
    # A network file system may keep no locks, or for one host only; a heartbeat is seen by all.
    gone_or_own = holder.is_alive(lease.last) is False or holder.is_this(lease.last)
    if not gone_or_own and is_beating(directory / HEARTBEAT):
        raise _already_running(directory.name, lease)


def _already_running(name: str, lease: Lease) -> AlreadyRunning:
    return AlreadyRunning(
        f"The run {name} is already running ({describe(lease.last)}). One process at a time works "
        "on a run: wait for it or stop it, then run the same command again."
    )
