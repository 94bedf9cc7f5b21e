"""Stopping between two steps when asked to, instead of in the middle of one."""

import _thread
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from pvt_bench.screen import announce


class Interruption:
    """While entered, a signal to stop is only noted in `received`; a second one acts at once.

    Ctrl-C then raises KeyboardInterrupt, also in a process that was started to ignore it.

    SIGINT and SIGTERM end a run for good; SIGUSR2 is how a scheduler announces that it will take
    the machine away, or that the time is over.

    where: how far the work still goes, for the user, who is told as soon as the signal arrives:
        Python itself calls a handler only after the operation that is under way, and a backward
        pass is one operation.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self, where: str) -> None:
        self.received = 0
        self._where = where
        self._twice = self._acted = False
        self._previous: dict[signal.Signals, Any] = {}
        self._listener: _Listener | None = None

    def __enter__(self) -> "Interruption":
        self._previous = {number: signal.getsignal(number) for number in self.SIGNALS}
        if self._previous[signal.SIGINT] == signal.SIG_IGN:
            self._previous[signal.SIGINT] = signal.default_int_handler
        self.arm()
        self._listener = _Listener(self._hear)
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
        if self._listener is not None:
            self._listener.close()
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        signal.signal(signal.SIGINT, self._act)
        if self._twice:
            self._act()

    def _act(self, *_: Any) -> None:
        self._acted = True
        self._restore()
        raise KeyboardInterrupt

    def _hear(self, number: int, heard: int) -> None:
        """Tell the user; in the listener's thread."""
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if heard == 1:
            again = "; press it again to stop at once" if number == signal.SIGINT else ""
            announce(f"{name}: stopping {self._where}{again}")
        elif number == signal.SIGINT and heard == 2:
            announce(
                f"{name} again: stopping at once; the same command goes on from the last checkpoint"
            )
            self._twice = True
            # Two signals within one operation make one call of the handler.
            if self.received and not self._acted:
                _thread.interrupt_main()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class _Listener:
    """A thread that hears of signals when they arrive, not when Python calls their handlers."""

    def __init__(self, hear: Callable[[int, int], None]) -> None:
        self._hear = hear
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Hear no more."""
        signal.set_wakeup_fd(self._before)
        with suppress(OSError):
            self._reading.shutdown(socket.SHUT_RDWR)
        self._writing.close()

    def _listen(self) -> None:
        heard = 0
        with self._reading:
            while numbers := self._reading.recv(16):
                for number in numbers:
                    if number in Interruption.SIGNALS:
                        heard += 1
                        self._hear(number, heard)


def _hear_nothing() -> None:
    # A forked reader has the socket too, and Ctrl-C reaches it as well.
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_hear_nothing)
