"""Waits for the cells of a sweep, records how killed cells ended, and writes the sweep's table."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from pvt_bench.escaping import markdown, markdown_code, to_csv
from pvt_bench.files import replace
from pvt_bench.launching.sweep import DONE, LOST, STOPPED, UNDER_WAY, State, Sweep, look
from pvt_bench.screen import clock, figure, say, show_rows
from pvt_bench.tracking.lease import AlreadyRunning
from pvt_bench.tracking.metrics import MetricsFile, Point
from pvt_bench.tracking.parent import close_parents, end_runs
from pvt_bench.tracking.reading import mlflow_run
from pvt_bench.tracking.record import Record

LOOK_EVERY_S = 2.0
SAY_EVERY_S = 60.0
# Cells of one reason that are named; the others are counted.
NAMED = 5
COSTS = {"params": "cost/params_m", "GFLOPs": "cost/gflops"}
Cells = list[str | float | None]


def wait(sweep: Sweep, step: Callable[[], bool] = lambda: False) -> list[State]:
    """Wait until no cell is under way any more; how they stand then.

    step: called at each look, to start further cells; true while any is to be started, or to end.
    """
    said, last, began = "", 0.0, time.monotonic()
    first: float | None = None
    while True:
        more = step()
        states = look(sweep)
        if not more and not any(state.word in UNDER_WAY for state in states):
            return states
        part = sum(_part_done(sweep, state) for state in states) / len(states)
        first = part if first is None else first
        words, passed = count(states), time.monotonic() - last
        if (words != said and passed > LOOK_EVERY_S) or passed > SAY_EVERY_S:
            times = how_long(time.monotonic() - began, part - first, 1 - part)
            say(f"{sweep.name}: {words}{times}")
            said, last = words, time.monotonic()
        time.sleep(LOOK_EVERY_S)


def how_long(elapsed: float, done: float, left: float) -> str:
    """The end of a line: time elapsed and ETA, from the shares of the work done and left."""
    eta = f", ETA {clock(elapsed * left / done)}" if done > 0 else ""
    return f"  {clock(elapsed)} elapsed{eta}"


def conclude(sweep: Sweep, states: Sequence[State]) -> list[State]:
    """Settle, write the sweep's table, and end its parents in MLflow; how the cells stand."""
    states = settle(sweep, states)
    close(sweep, states)
    return states


def settle(sweep: Sweep, states: Sequence[State]) -> list[State]:
    """Note in records and in MLflow how those cells ended that could not say so themselves."""
    ended = {}
    for state in states:
        if state.word != LOST or state.status["state"] not in ("running", "queued"):
            continue
        cancelled = state.job.state == "CANCELLED"
        with suppress(AlreadyRunning), Record.reopen(sweep.record(state.cell)) as record:
            record.update(state="interrupted" if cancelled else "failed", error=state.why)
            if run_id := mlflow_run(state.status):
                ended[run_id] = record.directory
    if ended:
        end_runs(sweep.uri, sweep.results_dir, ended)
    return look(sweep) if ended or any(state.word == LOST for state in states) else list(states)


def close(sweep: Sweep, states: Sequence[State]) -> None:
    """Write the sweep's table, and end its parents in MLflow where no cell is under way."""
    files = write(sweep, states)
    words = {state.word for state in states}
    if words & set(UNDER_WAY):
        return
    end = "FINISHED" if words <= {DONE} else "KILLED" if STOPPED in words else "FAILED"
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
        run_id = mlflow_run(status)
        if status["state"] == "finished" and run_id and cell.experiment in sweep.parents:
            parents[run_id] = sweep.parents[cell.experiment]
    return parents


def show(sweep: Sweep, states: Sequence[State]) -> None:
    """Print the table."""
    show_states(f"{sweep.name}: {count(states)}", states)
    say(f"sweep: {sweep.directory}")


def show_states(title: str, states: Sequence[State], unit: str = "cell") -> None:
    """Print how cells stand, and below it why, which a column would be too narrow for.

    unit: what a row is called.
    """
    headings, rows = tabulate(states)
    if headings[-1] == "why":
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    show_rows(title, [unit, *headings[1:]], rows)
    cells: dict[str, list[str]] = {}
    for state in states:
        if state.why:
            cells.setdefault(state.why, []).append(state.cell.name)
    for why, names in cells.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        say(f"{', '.join(names[:NAMED])}{more}: {why}")


def write(sweep: Sweep, states: Sequence[State]) -> list[Path]:
    """Write `table.md` and `table.csv` into the sweep's directory; their paths."""
    headings, rows = tabulate(states)
    # As objects: pandas' own texts take no halves of characters.
    table = pd.DataFrame(rows, columns=headings, dtype=object)
    texts = {"table.md": to_markdown(sweep, states), "table.csv": to_csv(table)}
    for name, text in texts.items():
        replace(sweep.directory / name, text.encode())
    return [sweep.directory / name for name in texts]


def to_markdown(sweep: Sweep, states: Sequence[State]) -> str:
    """The table with the command that made it."""
    headings, rows = tabulate(states)
    lines = [headings, ["---"] * len(headings), *([_text(value) for value in row] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    command = markdown_code(" ".join(["python -m pvt_bench", *sweep.typed]))
    return f"# {markdown(sweep.name)}\n\n{count(states)}: {command}\n\n{table}\n"


def tabulate(states: Sequence[State]) -> tuple[list[str], list[Cells]]:
    """Headings and rows: the cell, how it stands, its figures, what went wrong or is awaited."""
    found = [_figures(state) for state in states]
    names = list(dict.fromkeys(name for each in found for name in each))
    with_why = any(state.why for state in states)
    rows: list[Cells] = []
    for state, each in zip(states, found, strict=True):
        row: Cells = [state.cell.name, state.word, *(each.get(name) for name in names)]
        rows.append([*row, state.why.splitlines()[0] if state.why else ""] if with_why else row)
    return ["cell", "state", *names, *(["why"] if with_why else [])], rows


def count(states: Sequence[State]) -> str:
    """How many cells stand how: `3 done, 1 failed`."""
    return ", ".join(f"{number} {word}" for word, number in Counter(s.word for s in states).items())


def progress(sweep: Sweep, state: State) -> str:
    """Step of a running cell and the time left, from its metrics."""
    steps = state.status.get("steps")
    points = _points(sweep, state)
    if not steps or not points:
        return ""
    first, last = points[0], points[-1]
    done = f"step {last.step} of {steps}"
    if last.step == first.step:
        return done
    left = (steps - last.step) * (last.time - first.time) / (last.step - first.step)
    return f"{done}, ETA {clock(left)}"


def _part_done(sweep: Sweep, state: State) -> float:
    """How much of a cell is behind it, from 0 to 1."""
    if state.word not in UNDER_WAY:
        return 1.0
    steps, points = state.status.get("steps"), _points(sweep, state)
    return min(1.0, points[-1].step / steps) if steps and points else 0.0


def _points(sweep: Sweep, state: State) -> list[Point]:
    return MetricsFile(sweep.record(state.cell) / "metrics.jsonl").tail()


def _figures(state: State) -> dict[str, float]:
    """The main figures of a finished cell, scores in hundredths."""
    row, cell = state.status.get("result") or {}, state.cell
    if cell.mode == "speed":
        return {name.removeprefix("speed/"): value for name, value in row.items()}
    shown = {name: row[metric] for name, metric in COSTS.items() if metric in row}
    if cell.mode == "cost":
        return shown
    shown |= {name: 100 * row[f"val/{name}"] for name in cell.headline if f"val/{name}" in row}
    return shown | ({"seconds": row["seconds"]} if "seconds" in row else {})


def _text(value: str | float | None) -> str:
    return markdown(value) if isinstance(value, str) else figure(value)
