"""Stopping between two steps when asked to, instead of in the middle of one."""

import signal
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """While entered, a signal to stop is only noted in `received`; a second one acts at once.

    Ctrl-C then raises KeyboardInterrupt, also in a process that was started to ignore it.

    SIGINT and SIGTERM end a run for good; SIGUSR2 is how a scheduler announces that it will take
    the machine away, or that the time is over.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        self._previous = {number: signal.getsignal(number) for number in self.SIGNALS}
        if self._previous[signal.SIGINT] == signal.SIG_IGN:
            self._previous[signal.SIGINT] = signal.default_int_handler
        self.arm()
        return self

    def arm(self) -> None:
        """Take the signals again from a library that has put handlers of its own."""
        if not self.received:
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
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
