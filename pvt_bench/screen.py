"""What a run shows in the terminal: lines, progress with the time left, the closing table."""

import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.box import SIMPLE_HEAVY
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
)
from rich.table import Table as Grid
from rich.text import Text

from pvt_bench.escaping import visible

# Without a terminal (a log file, a SLURM job) a line now and then takes the bar's place.
LINE_EVERY = 30.0
WIDTH_WITHOUT_TERMINAL = 140
# Between two columns of a table, and at its edge.
PADDING = 3

Value = str | float | None

# Nothing that is printed is markup, whoever wrote it.
console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
if not console.is_terminal:
    console.width = WIDTH_WITHOUT_TERMINAL


class Log:
    """Keeps what is printed in a file too; until that is known, the last lines in memory.

    A log that cannot be written is no reason to end a run.
    """

    KEPT = 50

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._append: Callable[[str], None] | None = None

    def write(self, message: str) -> None:
        """Add lines, with the time in UTC; nothing where another process of the run prints."""
        if console.quiet:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        self._lines += [f"{now}  {line}\n" for line in visible(message).splitlines()]
        if self._append is None:
            del self._lines[: -self.KEPT]
            return
        with suppress(OSError):
            self._append("".join(self._lines))
        self._lines = []

    def clear(self) -> None:
        """Forget what was printed: the next run has a log of its own."""
        self._lines = []

    @contextmanager
    def kept_in(self, file: Path, shown: Callable[[str], str]) -> Iterator[None]:
        """Append to a file while entered, beginning with what was printed before.

        shown: what is written of a text.
        """

        def append(text: str) -> None:
            with file.open("a", encoding="utf-8") as opened:
                opened.write(shown(text))

        self._append = append
        try:
            yield
        finally:
            self._append = None


log = Log()
_said: set[str] = set()


def say(message: str) -> None:
    """Print a line."""
    log.write(message)
    console.print(visible(message))


def say_once(message: str) -> None:
    """Print those lines that this process has not printed yet; the log has them all."""
    log.write(message)
    for line in message.splitlines():
        if line not in _said:
            _said.add(line)
            console.print(visible(line))


def silence() -> None:
    """Print nothing more: another process of the run does."""
    console.quiet = True


def warn(message: str) -> None:
    """Print a line that should not be overlooked."""
    log.write(f"warning: {message}")
    console.print(visible(f"warning: {message}"), style="yellow")


def complain(message: str) -> None:
    """Print why a command fails, to the standard error."""
    log.write(message)
    print(visible(message), file=sys.stderr)


def announce(message: str) -> None:
    """Print a line from a signal's thread, past a progress bar and whatever is being printed."""
    if not console.quiet:
        start = "\r\x1b[2K" if console.is_terminal else ""
        with suppress(OSError):
            os.write(sys.stderr.fileno(), f"{start}{visible(message)}\n".encode())


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
        times = f"{clock(elapsed)} elapsed, ETA {clock(left)}"
        if self.progress is not None:
            self.progress.update(
                self.task, completed=self.done, note=visible(self.note), times=times
            )
        if self.done >= self.total or now - self.printed > LINE_EVERY:
            self.printed = now
            line = f"{self.name} {self.done}/{self.total}  {self.note}  {times}"
            (say if self.progress is None else log.write)(line)


@contextmanager
def progress_bar(name: str, total: int, done: int = 0) -> Iterator[Bar]:
    """Show the progress of some work while entered."""
    if not console.is_terminal or console.is_dumb_terminal:
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


def show_row(title: str, row: Mapping[str, Value], note: str = "") -> None:
    """Print a table of one row under its title."""
    show_rows(title, list(row), [list(row.values())], note)


def show_rows(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[Value]], note: str = ""
) -> None:
    """Print a table under its title; where it is wider than the screen, in parts."""
    texts: list[list[Text]] = []
    figures: list[list[Text]] = []
    for place, heading in enumerate(headings):
        values = [row[place] for row in rows]
        column = [Text(visible(heading)), *(Text(visible(figure(value))) for value in values)]
        (texts if any(isinstance(value, str) for value in values) else figures).append(column)
    show_columns(title, texts, figures)
    if note:
        console.print(visible(note), style="dim")


def show_columns(title: str, texts: list[list[Text]], figures: list[list[Text]]) -> None:
    """Print a table of columns, each with its heading first; text is wrapped, a figure never is.

    Where it is wider than the screen it is printed in parts, each with all columns of text.
    """
    for place, part in enumerate(_parts(texts, figures)):
        grid = Grid(
            title=None if place else Text(visible(title)), title_justify="left", box=SIMPLE_HEAVY,
            pad_edge=False,
        )  # fmt: skip
        for column in texts:
            grid.add_column(column[0], overflow="fold")
        for column in part:
            grid.add_column(column[0], justify="right", no_wrap=True)
        for line in zip(*(column[1:] for column in (*texts, *part)), strict=True):
            grid.add_row(*line)
        console.print(grid)


def _parts(texts: list[list[Text]], figures: list[list[Text]]) -> Iterator[list[list[Text]]]:
    """Split the columns of figures into parts that fit beside the text at its narrowest."""
    room = console.width - sum(_width(column, r"\s") for column in texts)
    part: list[list[Text]] = []
    for column in figures:
        if part and sum(_width(each, "\n") for each in [*part, column]) > room:
            yield part
            part = []
        part.append(column)
    yield part


def _width(column: list[Text], breaks: str) -> int:
    """Cells that a column takes on the screen where it is broken at a pattern."""
    return PADDING + max(cell_len(part) for text in column for part in re.split(breaks, text.plain))


def figure(value: Value) -> str:
    """A value as tables show it: text as it is, a number with one decimal, a dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return value if isinstance(value, str) else f"{value:.1f}"


def clock(seconds: float) -> str:
    """A duration as `h:mm:ss`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
