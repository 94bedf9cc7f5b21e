"""Tables on the screen."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAVY
from rich.cells import cell_len
from rich.table import Table as Grid
from rich.text import Text

from pvt_bench.escaping import visible
from pvt_bench.report.tables.rows import MISSING, Cell, Row, Table
from pvt_bench.screen import console, say

# A screen or two; the files have them all.
SHOWN = 60
# Between two columns, and at the edge.
PADDING = 3


def show_table(table: Table) -> None:
    """Print a table section by section, with the run that each row comes from."""
    shown = 0
    for section, rows in table.sections:
        if shown < SHOWN:
            title = ", ".join(part for part in (table.title, section) if part)
            _show_rows(table, title, rows[: SHOWN - shown])
        shown += len(rows)
    if shown > SHOWN:
        say(f"and {shown - SHOWN:,} more rows")


def _show_rows(table: Table, title: str, rows: Sequence[Row]) -> None:
    cells = [table.cells(row) for row in rows]
    columns = [
        [_seen(Cell("\n".join(heading).strip())), *(_seen(line[place]) for line in cells)]
        for place, heading in enumerate(table.columns)
    ]
    texts, figures = columns[: table.words], columns[table.words :]
    figures = [column for column in figures if any(c.text != MISSING for c in column[1:])]
    if any(row.origins for row in rows):
        figures.append([Cell("run"), *(Cell(_runs(row)) for row in rows)])
    for place, part in enumerate(_parts(texts, figures)):
        grid = Grid(
            title=None if place else Text(visible(title)), title_justify="left", box=SIMPLE_HEAVY,
            pad_edge=False,
        )  # fmt: skip
        for column in (*texts, *part):
            text = column in texts
            grid.add_column(
                Text(column[0].text), justify="left" if text else "right", no_wrap=not text
            )
        for line in zip(*(column[1:] for column in (*texts, *part)), strict=True):
            grid.add_row(*map(_styled, line))
        console.print(grid)


def _parts(texts: list[list[Cell]], figures: list[list[Cell]]) -> Iterator[list[list[Cell]]]:
    """Split the columns into parts that fit the screen, so that no number is cut."""
    room = console.width - sum(map(_width, texts))
    part: list[list[Cell]] = []
    for column in figures:
        if part and sum(map(_width, [*part, column])) > room:
            yield part
            part = []
        part.append(column)
    yield part


def _width(column: list[Cell]) -> int:
    return max(cell_len(line) for cell in column for line in cell.text.split("\n")) + PADDING


def _runs(row: Row) -> str:
    first, *others = [origin.identity for origin in row.origins] or [""]
    return f"{first} +{len(others)}" if others else first


def _styled(cell: Cell) -> Text:
    return Text(cell.text, style="bold underline" if cell.best else "")


def _seen(cell: Cell) -> Cell:
    return cell._replace(text=visible(cell.text))
