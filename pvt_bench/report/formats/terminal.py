"""Tables on the screen."""

from collections.abc import Sequence

from rich.text import Text

from pvt_bench.escaping import visible
from pvt_bench.report.tables.rows import MISSING, Cell, Row, Table
from pvt_bench.screen import say, show_columns

# A screen or two; the files have them all.
SHOWN = 60


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
    show_columns(title, [_styled(column) for column in texts], [_styled(c) for c in figures])


def _runs(row: Row) -> str:
    first, *others = [origin.identity for origin in row.origins] or [""]
    return f"{first} +{len(others)}" if others else first


def _styled(column: list[Cell]) -> list[Text]:
    return [Text(cell.text, style="bold underline" if cell.best else "") for cell in column]


def _seen(cell: Cell) -> Cell:
    return cell._replace(text=visible(cell.text))
