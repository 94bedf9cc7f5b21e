"""Shows how sweeps and single runs stand, from their records and from SLURM.

    python -m pvt_bench.status                    all under results_dir
    python -m pvt_bench.status sweep=NAME         the cells of one sweep
    python -m pvt_bench.status results_dir=PATH   those of other results

A run is done, running (with its step and ETA), queued (with the reason),
stopped, failed (with the error), lost, or unknown where SLURM does not answer.
Once all cells have ended, the sweep's table is written, as by the command that
started it.

Exit codes: 0 all done or under way, as far as is known; 1 a run has failed, is
lost or was stopped; 2 the command cannot be used.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pvt_bench.commands import DONE, FAILED, find_results, read_words, run_command
from pvt_bench.launching.sweep import DONE as FINISHED
from pvt_bench.launching.sweep import (
    FAILURES,
    RUNNING,
    UNKNOWN,
    State,
    Sweep,
    find_log,
    find_sweep,
    look,
    read_sweeps,
    single_runs,
)
from pvt_bench.launching.watching import (
    conclude,
    count,
    is_concluded,
    progress,
    show,
    show_states,
)
from pvt_bench.screen import say, show_rows

# Single runs that are listed; the others are counted.
SHOWN = 30


def main(words: Sequence[str]) -> int:
    """Show what the command line names; the exit code."""
    return run_command(words, show_typed, __doc__)


def show_typed(words: Sequence[str]) -> int:
    """Show the sweep that is typed, or all sweeps and single runs; the exit code."""
    typed = dict(read_words(words, ("sweep", "results_dir")))
    results_dir = find_results(typed)
    if "sweep" in typed:
        return show_cells(Sweep.read(find_sweep(results_dir, typed["sweep"])))
    sweeps, damaged = read_sweeps(results_dir)
    runs = single_runs(results_dir, sweeps)
    if not sweeps and not damaged and not runs.cells:
        say(f"There is no run in {results_dir}. python -m pvt_bench starts one.")
    return max(list_sweeps(results_dir, sweeps), list_runs(runs), FAILED if damaged else DONE)


def list_sweeps(results_dir: Path, sweeps: Sequence[Sweep]) -> int:
    """A line for each sweep, and the cells of the only one; the exit code."""
    if len(sweeps) <= 1:
        return max(map(show_cells, sweeps), default=DONE)
    states = [look(sweep) for sweep in sweeps]
    rows = [[sweep.name, count(each)] for sweep, each in zip(sweeps, states, strict=True)]
    show_rows(f"sweeps in {results_dir}", ["sweep", "cells"], rows)
    say("sweep=NAME shows the cells of one")
    return _judge([state for each in states for state in each])


def list_runs(runs: Sweep) -> int:
    """The runs that belong to no sweep, those that need attention first; the exit code."""
    if not runs.cells:
        return DONE
    states = sorted(look(runs), key=lambda state: state.word == FINISHED)
    shown = [_with_progress(runs, state) for state in states[:SHOWN]]
    show_states(f"single runs in {runs.results_dir}: {count(states)}", shown, "run")
    if len(states) > SHOWN:
        say(f"and {len(states) - SHOWN:,} more")
    _name_logs(runs, states)
    return _judge(states)


def show_cells(sweep: Sweep) -> int:
    """The table of a sweep; the exit code."""
    states = look(sweep)
    if not is_concluded(sweep, states):
        states = conclude(sweep, states)
    show(sweep, [_with_progress(sweep, state) for state in states])
    _name_logs(sweep, states)
    return _judge(states)


def _name_logs(sweep: Sweep, states: Sequence[State]) -> None:
    for state in states:
        if state.word in FAILURES and (log := find_log(sweep, state)):
            say(f"{state.cell.name}: log {log}")


def _judge(states: Sequence[State]) -> int:
    why = next((state.why for state in states if state.word == UNKNOWN), None)
    if why:
        say(f"unknown: {why}; run the same command again later")
    return FAILED if any(state.word in FAILURES for state in states) else DONE


def _with_progress(sweep: Sweep, state: State) -> State:
    return replace(state, why=progress(sweep, state)) if state.word == RUNNING else state


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
