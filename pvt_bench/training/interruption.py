"""Stopping between two steps when asked to, instead of in the middle of one."""

import signal
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop and has stopped; the same command goes on from there."""


class Interruption:
    """While entered, SIGINT and SIGTERM only set `requested`; a second one acts at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        self._previous = {number: signal.getsignal(number) for number in self.SIGNALS}
        self.arm()
        return self

    def arm(self) -> None:
        """Take the signals again from a library that has put handlers of its own."""
        for number in self._previous:
            signal.signal(number, self._note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
