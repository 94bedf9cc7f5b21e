"""Processes that work on one run together, and those that this machine's cores take work from.

A process alone is the plain case. Torch is imported where it is needed: light commands spread work.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

from pvt_bench.errors import Failed

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


def rank() -> int:
    """The number of this process, from 0."""
    group = _group()
    return int(group.get_rank()) if group else 0


def count() -> int:
    """The number of processes that work on the run."""
    group = _group()
    return int(group.get_world_size()) if group else 1


def gather(items: list[Any]) -> list[Any]:
    """The items of all processes, in the order of their ranks, on each of them."""
    group = _group()
    if not group:
        return items
    parts: list[Any] = [None] * count()
    group.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def first(action: Callable[[], Result]) -> Result:
    """Result of `action`, which only the first process runs, on all processes.

    An exception that it raises there is raised on all.
    """
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error
    if group := _group():
        group.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result


def all_of(verdict: "Tensor") -> bool:
    """Whether a verdict () bool is true on every process."""
    if group := _group():
        verdict = verdict.int()
        group.all_reduce(verdict, group.ReduceOp.MIN)
    return bool(verdict)


def average(values: "Tensor") -> "Tensor":
    """Mean of a tensor over all processes, on each of them; no gradient passes."""
    group = _group()
    if not group:
        return values
    total = values.clone()
    group.all_reduce(total)
    return total / count()


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that the environment names, as `torchrun` does: WORLD_SIZE, RANK,
    LOCAL_RANK, MASTER_ADDR, MASTER_PORT. Without them the process is alone."""
    import torch
    from torch import distributed

    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Objects are exchanged from CPU memory, gradients from where they are.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def spin_briefly() -> None:
    """Let torch's threads spin for microseconds while they wait, and leave the cores to the
    processes that read images; call it before torch is imported.

    On two cores a step of RetinaNet takes 0.6 of the time that it does with threads that sleep at
    once (OMP_WAIT_POLICY=PASSIVE).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


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
    """The function's results over the items, in their order, from all cores.

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
            "Give the command more memory, or fewer cores and with them fewer processes: use "
            "taskset -c 0 before it for one."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _group() -> Any:
    """torch.distributed where several processes work on the run, else None."""
    from torch import distributed

    return distributed if distributed.is_initialized() else None


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C for later: processes that are started within never get it, this one after."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
