"""Tables as Markdown and as CSV."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd

from pvt_bench.escaping import markdown as escape
from pvt_bench.escaping import markdown_code
from pvt_bench.escaping import to_csv as csv
from pvt_bench.report.formats.files import link
from pvt_bench.report.tables.rows import Cell, Origin, Table


def to_markdown(tables: Sequence[Table], directory: Path) -> str:
    """Write the tables in sections, with notes and the runs that they come from.

    directory: where the text will lie; paths of records go from there.
    """
    lines = [line for table in tables for line in _lines(table, directory)]
    return "\n".join(lines).rstrip("\n") + "\n"


def to_csv(tables: Sequence[Table]) -> str:
    """Write the numbers of all tables as one, with a column for the table if there are several."""
    frames = [table.frame() for table in tables]
    if len(tables) > 1:
        for table, frame in zip(tables, frames, strict=True):
            frame.insert(0, "table", table.title)
    return csv(pd.concat(frames), float_format="%.6g")


def _lines(table: Table, directory: Path) -> Iterator[str]:
    yield from (f"# {escape(table.title)}", "", markdown_code(table.command), "")
    texts = table.words
    for section, rows in table.sections:
        if section:
            yield from (f"## {escape(section)}", "")
        yield _line([escape(heading) for heading in table.headings])
        yield _line([*["---"] * texts, *["---:"] * (len(table.headings) - texts)])
        for row in rows:
            yield _line([_show(cell) for cell in table.cells(row)])
        yield ""
    if table.notes or table.remarks:
        yield from ("## Notes", "")
        for note in table.notes:
            yield from (escape(note), "")
        yield from (f"- {escape(remark)}" for remark in table.remarks)
        yield from [""] if table.remarks else []
    if any(row.origins for row in table.rows):
        yield from _runs(table, directory)


def _runs(table: Table, directory: Path) -> Iterator[str]:
    yield from ("## Runs", "", _line(["row", "run", "seed", "state", "commit", "date", "machine"]))
    yield _line(["---"] * 7)
    for row in table.rows:
        for origin in row.origins:
            run = _run(origin, directory)
            texts = (origin.seed, origin.state, origin.version, origin.date, origin.machine)
            yield _line([escape(row.label), run, *map(escape, texts)])
    yield ""


def _run(origin: Origin, directory: Path) -> str:
    """A link to a run on a server, or the path of a record: tables are read far from records."""
    name, target = escape(origin.identity), link(origin.link, directory)
    if urlsplit(target).scheme:
        return f"[{name}]({target})"
    return markdown_code(unquote(target)) if target else name


def _show(cell: Cell) -> str:
    return f"**{escape(cell.text)}**" if cell.best else escape(cell.text)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
