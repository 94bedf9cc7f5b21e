"""How a run ends where a process that reads images for it fails or hangs."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children

from pvt_bench.errors import Failed

# What torch says of a process that is gone; errors that are raised in one read otherwise.
_GONE = re.compile(r"DataLoader worker \(pid")
_SIGNAL = re.compile(r"killed by signal: (.+?)\.")
_CAUSES = {
    "Killed": (
        "was killed, as the kernel does when memory runs out. Give the run more memory, or use a "
        "smaller trainer.workers, which is the number of such processes."
    ),
    "Bus error": (
        "ended with a bus error: shared memory (/dev/shm) or a disk is full, or a file was cut "
        "short while it was read. Free some space, or use trainer.workers=0 to do without."
    ),
}
_OTHERWISE = (
    "ended unexpectedly ({}). With trainer.workers=0 the main process reads the images, and shows "
    "where it fails."
)


@contextmanager
def failures_named() -> Iterator[None]:
    """Raise Failed, with what to type, where a process that reads images is gone."""
    try:
        yield
    except RuntimeError as error:
        # torch raises the second from the first where it was waiting for a batch.
        told = f"{error} {error.__cause__}"
        if not _GONE.search(told):
            raise
        raise Failed(
            f"A process that reads images {_explain(told)} The same command goes on from the last "
            "checkpoint."
        ) from error


def _explain(told: str) -> str:
    found = _SIGNAL.search(told)
    if found is None:
        return _OTHERWISE.format("its error is printed above")
    return _CAUSES.get(found[1], _OTHERWISE.format(found[1]))


def end_readers() -> None:
    """Kill the processes that read images.

    torch asks them to end and waits; one that hangs or is stopped would never answer.
    """
    # torch answers the death of a reader by an exception, wherever the main process stands.
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for reader in (child for child in active_children() if child.daemon):
            reader.kill()
            reader.join()
    finally:
        signal.signal(signal.SIGCHLD, previous)
