"""Shows the state of every run of a sweep, from its records and from SLURM.

    python -m pvt_bench.status                    the sweeps under results_dir
    python -m pvt_bench.status sweep=NAME         the runs of one sweep
    python -m pvt_bench.status results_dir=PATH   those of other results

A run is done, running (with its step and the time left), queued (with the
reason), stopped, failed (with the error), lost, or unknown where SLURM does not
answer. Once all runs have ended, the sweep's table is written, as by the command
that started it.

Exit codes: 0 all done or under way, as far as is known; 1 a run has failed, is
lost or was stopped; 2 the command cannot be used.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pvt_bench.commands import DONE, FAILED, find_results, read_words, run_command
from pvt_bench.launching.sweep import (
    FAILURES,
    RUNNING,
    UNKNOWN,
    State,
    Sweep,
    find_sweep,
    look,
    read_sweeps,
)
from pvt_bench.launching.watching import conclude, count, is_concluded, progress, show
from pvt_bench.screen import say, show_rows


def main(words: Sequence[str]) -> int:
    """Show what the command line names; the exit code."""
    return run_command(words, show_typed, __doc__)


def show_typed(words: Sequence[str]) -> int:
    """Show the sweep that is typed, or all; the exit code."""
    typed = dict(read_words(words, ("sweep", "results_dir")))
    results_dir = find_results(typed)
    if "sweep" in typed:
        return show_cells(Sweep.read(find_sweep(results_dir, typed["sweep"])))
    return list_sweeps(results_dir)


def list_sweeps(results_dir: Path) -> int:
    """A line for each sweep, and the cells of the only one."""
    sweeps, damaged = read_sweeps(results_dir)
    if not sweeps and not damaged:
        say(f"There is no sweep in {results_dir}. -m, table= and sweep= start one.")
        return DONE
    if len(sweeps) == 1:
        return max(show_cells(sweeps[0]), FAILED if damaged else DONE)
    states = [look(sweep) for sweep in sweeps]
    rows = [[sweep.name, count(each)] for sweep, each in zip(sweeps, states, strict=True)]
    show_rows(f"sweeps in {results_dir}", ["sweep", "cells"], [list(row) for row in rows])
    say("sweep=NAME shows the cells of one")
    _say_unknown([state for each in states for state in each])
    failed = any(state.word in FAILURES for each in states for state in each)
    return FAILED if failed or damaged else DONE


def show_cells(sweep: Sweep) -> int:
    """The table of a sweep."""
    states = look(sweep)
    if not is_concluded(sweep, states):
        states = conclude(sweep, states)
    show(sweep, [_with_progress(sweep, state) for state in states])
    for state in states:
        log = state.launch.get("log")
        if state.word in FAILURES and log and Path(log).exists():
            say(f"{state.cell.name}: log {log}")
    _say_unknown(states)
    return FAILED if any(state.word in FAILURES for state in states) else DONE


def _say_unknown(states: Sequence[State]) -> None:
    why = next((state.why for state in states if state.word == UNKNOWN), None)
    if why:
        say(f"unknown: {why}; type the same command again later")


def _with_progress(sweep: Sweep, state: State) -> State:
    return replace(state, why=progress(sweep, state)) if state.word == RUNNING else state


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
