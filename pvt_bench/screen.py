"""What a run shows in the terminal: lines, progress with the time left, the closing table."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
)
from rich.table import Table

from pvt_bench.escaping import visible

# Without a terminal (a log file, a SLURM job) a line now and then takes the bar's place.
LINE_EVERY = 30.0
WIDTH_WITHOUT_TERMINAL = 140

# Nothing that is printed is markup, whoever wrote it.
console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
if not console.is_terminal:
    console.width = WIDTH_WITHOUT_TERMINAL


def say(message: str) -> None:
    """Print a line."""
    console.print(visible(message))


def silence() -> None:
    """Print nothing more: another process of the run does."""
    console.quiet = True


def warn(message: str) -> None:
    """Print a line that should not be overlooked."""
    console.print(visible(f"warning: {message}"), style="yellow")


def complain(message: str) -> None:
    """Print why a command fails, to the standard error."""
    print(visible(message), file=sys.stderr)


class Bar:
    """Progress of one piece of work of `total` steps, of which `done` are behind it.

    `note`, the loss for example, stands beside it.
    """

    def __init__(self, name: str, total: int, done: int, progress: Progress | None) -> None:
        self.name = name
        self.total = total
        self.done = self.first = done
        self.note = ""
        self.started = self.printed = time.monotonic()
        self.progress = progress
        if progress is not None:
            self.task = progress.add_task(
                visible(name), total=total, completed=done, note="", times=""
            )

    def advance(self, steps: int = 1) -> None:
        """Go on by `steps`."""
        self.done += steps
        now = time.monotonic()
        elapsed = now - self.started
        left = elapsed / max(1, self.done - self.first) * max(0, self.total - self.done)
        times = f"{_clock(elapsed)} elapsed, {_clock(left)} left"
        if self.progress is not None:
            self.progress.update(
                self.task, completed=self.done, note=visible(self.note), times=times
            )
        elif self.done >= self.total or now - self.printed > LINE_EVERY:
            self.printed = now
            say(f"{self.name} {self.done}/{self.total}  {self.note}  {times}")


@contextmanager
def progress_bar(name: str, total: int, done: int = 0) -> Iterator[Bar]:
    """Show the progress of some work while entered."""
    if not console.is_terminal:
        yield Bar(name, total, done, None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TextColumn("{task.fields[times]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(name, total, done, progress)


def show_row(title: str, row: Mapping[str, str | float | None], note: str = "") -> None:
    """Print a table of one row under its title."""
    show_rows(title, list(row), [list(row.values())], note)


def show_rows(
    title: str, columns: list[str], rows: list[list[str | float | None]], note: str = ""
) -> None:
    """Print a table under its title."""
    table = Table(title=visible(title), title_justify="left", box=SIMPLE_HEAVY, pad_edge=False)
    for place, name in enumerate(columns):
        text = any(isinstance(row[place], str) for row in rows)
        # A long name is wrapped; a number never is.
        table.add_column(visible(name), justify="left" if text else "right", no_wrap=not text)
    for row in rows:
        table.add_row(*(visible(_format(value)) for value in row))
    console.print(table)
    if note:
        console.print(visible(note), style="dim")


def _format(value: str | float | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return value if isinstance(value, str) else f"{value:.1f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
