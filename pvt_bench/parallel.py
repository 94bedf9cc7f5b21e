"""Work on all cores of this machine, in processes that Ctrl-C leaves to this one."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from pvt_bench.errors import Failed

Item = TypeVar("Item")
Result = TypeVar("Result")


def count_cores() -> int:
    """The cores that this process may use: a scheduler may have given it fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def spread(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    chunk: int,
    prepare: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """The function's results over the items, in their order.

    chunk: items that a process takes at a time; prepare: called once in each process.
    """
    processes = max(1, min(count_cores(), len(items) // chunk))
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=prepare)
    try:
        with _interrupts_held():
            results = pool.map(function, items, chunksize=chunk)
        yield from results
    except BrokenProcessPool as error:
        raise Failed(
            f"One of {processes} processes was killed, as the kernel does when memory runs out. "
            "Give the command more memory, or fewer cores and with them fewer processes: type "
            "taskset -c 0 before it for one."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C for later: processes that are started within never get it, this one after."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
