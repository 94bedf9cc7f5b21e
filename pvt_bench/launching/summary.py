"""The table of a sweep's cells, as its records have them; without torch."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pvt_bench.escaping import markdown, markdown_code, to_csv
from pvt_bench.files import replace
from pvt_bench.launching.states import DONE, State
from pvt_bench.launching.sweep import Sweep
from pvt_bench.screen import show_rows
from pvt_bench.tracking.metrics import MetricsFile

COSTS = {"params": "cost/params_m", "GFLOPs": "cost/gflops"}
Cells = list[str | float | None]


def figures(state: State) -> dict[str, float]:
    """The main figures of a finished cell, scores in hundredths."""
    row = state.status.get("result") or {}
    shown = {name: row[metric] for name, metric in COSTS.items() if metric in row}
    if state.cell.mode == "speed":
        return {name.removeprefix("speed/"): value for name, value in row.items()}
    if state.cell.mode == "cost":
        return shown
    scores = {
        name: 100 * row[f"val/{name}"] for name in state.cell.headline if f"val/{name}" in row
    }
    return shown | scores | {k: row[k] for k in ("seconds",) if k in row}


def tabulate(states: Sequence[State]) -> tuple[list[str], list[Cells]]:
    """Headings and rows: the cell, how it stands, its figures, what went wrong or is awaited."""
    found = [figures(state) for state in states]
    names = list(dict.fromkeys(name for each in found for name in each))
    with_why = any(state.why for state in states)
    rows: list[Cells] = []
    for state, each in zip(states, found, strict=True):
        row: Cells = [state.cell.name, state.word, *(each.get(name) for name in names)]
        rows.append([*row, state.why.splitlines()[0] if state.why else ""] if with_why else row)
    return ["cell", "state", *names, *(["why"] if with_why else [])], rows


def show(sweep: Sweep, states: Sequence[State]) -> None:
    """Print the table."""
    headings, rows = tabulate(states)
    show_rows(f"{sweep.name}: {count(states)}", headings, rows, f"sweep: {sweep.directory}")


def count(states: Sequence[State]) -> str:
    """How many cells stand how: `3 done, 1 failed`."""
    return ", ".join(f"{number} {word}" for word, number in Counter(s.word for s in states).items())


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


def progress(sweep: Sweep, state: State) -> str:
    """Where a running cell is: its step and the time left, from its metrics."""
    steps = state.status.get("steps")
    points = MetricsFile(sweep.record(state.cell) / "metrics.jsonl").tail()
    if not steps or not points:
        return ""
    step, last = points[-1].step, points[-1].time
    if len(points) < 2 or step == points[0].step:
        return f"step {step} of {steps}"
    left = (steps - step) * (last - points[0].time) / (step - points[0].step)
    return f"step {step} of {steps}, {_clock(left)} left"


def is_complete(states: Sequence[State]) -> bool:
    """Whether every cell is done."""
    return all(state.word == DONE for state in states)


def _text(value: str | float | None) -> str:
    if value is None:
        return "–"
    return markdown(value) if isinstance(value, str) else f"{value:.1f}"


def _clock(seconds: float) -> str:
    minutes, hours = int(seconds / 60) % 60, int(seconds / 3600)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {int(seconds) % 60:02} s"
