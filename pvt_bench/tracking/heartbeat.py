"""A sign of life: a file whose time of change moves on for as long as its process lives."""

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

HEARTBEAT = "heartbeat"  # within a record
BEAT_S = 10.0
# Some missed beats, for a busy machine or a network file system that lags behind.
LOST_AFTER_S = 90.0


class Heartbeat:
    """Touches a file every ten seconds, from a thread, until it is stopped.

    held: whether the run is still this process's; no more beats where it is not.
    """

    def __init__(self, path: Path, held: Callable[[], bool], every: float = BEAT_S) -> None:
        self._path = path
        self._held = held
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more beats, and no file."""
        self._stopped.set()
        self._thread.join()
        with suppress(OSError):
            if self._held():
                self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while True:
            # A full or absent disk is reported by those who write numbers.
            with suppress(OSError):
                if not self._held():
                    return
                self._path.touch()
            if self._stopped.wait(self._every):
                return


def is_fresh(path: Path, now: float | None = None) -> bool:
    """Whether the last beat is recent; one that was never heard is not.

    now: in Unix seconds, by default this machine's.
    """
    beat = _last(path)
    return beat is not None and (time.time() if now is None else now) - beat < LOST_AFTER_S


def is_beating(path: Path, listen_for: float = 2.5 * BEAT_S) -> bool:
    """Whether another beat comes, listening for at most `listen_for` seconds."""
    last = _last(path)
    # Clocks of two machines may be apart; the file system has one.
    if last is None or not is_fresh(path, _clock_of(path.parent)):
        return False
    until = time.monotonic() + listen_for
    while time.monotonic() < until:
        time.sleep(BEAT_S / 10)
        beat = _last(path)
        if beat is None or beat != last:
            return beat is not None
    return False


def _last(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _clock_of(directory: Path) -> float:
    """The time by the clock that a file system gives files theirs from."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".clock") as file:
        return Path(file.name).stat().st_mtime
