"""From a sweep that was started to its table: waiting, and settling what ended without a word."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from pvt_bench.launching.states import LOST, STOPPED, UNDER_WAY, State, look
from pvt_bench.launching.summary import count, is_complete, to_markdown, write
from pvt_bench.launching.sweep import Sweep
from pvt_bench.screen import say
from pvt_bench.tracking.lease import AlreadyRunning
from pvt_bench.tracking.parent import close_parents, end_runs
from pvt_bench.tracking.record import Record

LOOK_EVERY_S = 2.0
SAY_EVERY_S = 60.0


def wait(sweep: Sweep, step: Callable[[], bool] = lambda: False) -> list[State]:
    """Wait until no cell is under way any more; how they stand then.

    step: called at each look, to start further cells; true while any is to be started, or to end.
    """
    said, last = "", 0.0
    while True:
        more = step()
        states = look(sweep)
        words = count(states)
        if (words != said and time.monotonic() - last > LOOK_EVERY_S) or _overdue(last):
            say(f"{sweep.name}: {words}")
            said, last = words, time.monotonic()
        if not more and not any(state.word in UNDER_WAY for state in states):
            return states
        time.sleep(LOOK_EVERY_S)


def settle(sweep: Sweep, states: Sequence[State]) -> list[State]:
    """Note in records and in MLflow how those cells ended that could not say so themselves."""
    ends = {}
    for state in states:
        status = state.status
        if state.word != LOST or status["state"] not in ("running", "queued"):
            continue
        cancelled = state.job.state == "CANCELLED"
        with suppress(AlreadyRunning), Record.reopen(sweep.record(state.cell)) as record:
            record.update(state="interrupted" if cancelled else "failed", error=state.why)
            run_id = (status.get("mlflow") or {}).get("run_id")
            if run_id:
                ends[run_id] = "KILLED" if cancelled else "FAILED"
    if ends:
        end_runs(sweep.uri, sweep.results_dir, ends)
    return look(sweep) if ends or any(state.word == LOST for state in states) else list(states)


def conclude(sweep: Sweep, states: Sequence[State]) -> list[State]:
    """Settle, write the sweep's table, and end its parents in MLflow; how the cells stand."""
    states = settle(sweep, states)
    close(sweep, states)
    return states


def close(sweep: Sweep, states: Sequence[State]) -> None:
    """Write the sweep's table, and end its parents in MLflow where no cell is under way."""
    files = write(sweep, states)
    if any(state.word in UNDER_WAY for state in states):
        return
    stopped = any(state.word == STOPPED for state in states)
    end = "FINISHED" if is_complete(states) else "KILLED" if stopped else "FAILED"
    note = to_markdown(sweep, states)
    close_parents(sweep.uri, sweep.results_dir, sweep.parents.values(), end, note, files)


def is_concluded(sweep: Sweep, states: Sequence[State]) -> bool:
    """Whether the sweep's table says already how the cells stand."""
    table = sweep.directory / "table.md"
    return table.exists() and table.read_text() == to_markdown(sweep, states)


def parents_of_cells(sweep: Sweep) -> dict[str, str]:
    """The parents of the finished cells in MLflow, by the id of the cell's run."""
    parents = {}
    for cell in sweep.cells:
        status = sweep.status(cell)
        run_id = (status.get("mlflow") or {}).get("run_id")
        if status["state"] == "finished" and run_id and cell.experiment in sweep.parents:
            parents[run_id] = sweep.parents[cell.experiment]
    return parents


def _overdue(last: float) -> bool:
    return time.monotonic() - last > SAY_EVERY_S
