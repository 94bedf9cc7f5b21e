"""A sign of life: a file whose time of change moves on for as long as its process lives."""

import threading
import time
from contextlib import suppress
from pathlib import Path

BEAT_S = 10.0
# Some missed beats, for a busy machine or a network file system that lags behind.
LOST_AFTER_S = 90.0


class Heartbeat:
    """Touches a file every ten seconds, from a thread, until it is stopped."""

    def __init__(self, path: Path, every: float = BEAT_S) -> None:
        self._path = path
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more beats, and no file."""
        self._stopped.set()
        self._thread.join()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while True:
            # A full or absent disk is reported by those who write numbers.
            with suppress(OSError):
                self._path.touch()
            if self._stopped.wait(self._every):
                return


def is_fresh(path: Path) -> bool:
    """Whether the last beat is recent; one that was never heard is not."""
    try:
        return time.time() - path.stat().st_mtime < LOST_AFTER_S
    except FileNotFoundError:
        return False


def is_beating(path: Path, listen_for: float = 2.5 * BEAT_S) -> bool:
    """Whether another beat comes, listening for at most `listen_for` seconds."""
    if not is_fresh(path):
        return False
    last, until = path.stat().st_mtime, time.monotonic() + listen_for
    while time.monotonic() < until:
        time.sleep(BEAT_S / 10)
        if path.stat().st_mtime != last:
            return True
    return False
