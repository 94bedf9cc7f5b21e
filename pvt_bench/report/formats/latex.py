"""Tables as LaTeX for a paper: `\\input{tables/report.tex}` with booktabs."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from pvt_bench.escaping import latex as escape
from pvt_bench.escaping import one_line
from pvt_bench.report.tables.rows import BESIDE, MISSING, Cell, Row, Table

# Columns that a column of a paper holds.
WIDE = 7


def to_latex(tables: Sequence[Table]) -> str:
    """Write a `table` environment for each; comments above a row name its runs.

    Published figures stand beside the measured ones; differences, and columns without any number,
    are left to the other formats.
    """
    lines = ["% Needs \\usepackage{booktabs}, \\usepackage{graphicx} and"]
    lines += ["% \\usepackage[T1]{fontenc}."]
    return "\n".join([*lines, *(line for table in tables for line in _lines(table))]) + "\n"


def _lines(table: Table) -> Iterator[str]:
    shown, texts = _shown(table), table.words
    # Wide ones go over both columns of a paper, where it has two.
    environment = "table*" if len(shown) > WIDE else "table"
    yield from ("", f"% {one_line(table.command)}", f"\\begin{{{environment}}}", r"\centering")
    yield f"\\caption{{{escape(table.title)}}}"
    # Shrunk to the width of the text where it is wider, never stretched.
    yield r"\vskip 4pt\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield f"\\begin{{tabular}}{{{'l' * texts}{'r' * (len(shown) - texts)}}}"
    yield from (r"\toprule", *_headings(table, shown), r"\midrule")
    for number, (section, rows) in enumerate(table.sections):
        yield from [r"\midrule"] if number else []
        if section:
            yield f"\\multicolumn{{{len(shown)}}}{{l}}{{\\textit{{{escape(section)}}}}} \\\\"
        for row in rows:
            cells = table.cells(row)
            yield from _runs(row)
            yield f"{' & '.join(_show(cells[place]) for place in shown)} \\\\"
    yield from (r"\bottomrule", r"\end{tabular}}")
    yield from (f"% {one_line(note)}" for note in (*table.notes, *table.remarks))
    yield f"\\end{{{environment}}}"


def _shown(table: Table) -> list[int]:
    """Indices of the columns that are printed."""
    lines = [table.cells(row) for row in table.rows]
    return [
        place
        for place, (_, part) in enumerate(table.columns)
        if place < table.words
        or (part != BESIDE[1] and any(cells[place].text != MISSING for cells in lines))
    ]


def _headings(table: Table, shown: Sequence[int]) -> Iterator[str]:
    """Heading lines; a figure with two columns stands above them."""
    columns = [table.columns[place] for place in shown]
    if not any(part for _, part in columns):
        yield f"{' & '.join(escape(heading) for heading, _ in columns)} \\\\"
        return
    above, rules, below, place = [], [], [], 1
    for heading, group in groupby(columns, key=lambda column: column[0]):
        parts = [part for _, part in group]
        alone = parts == [""]
        above.append("" if alone else f"\\multicolumn{{{len(parts)}}}{{c}}{{{escape(heading)}}}")
        below += [escape(heading)] if alone else [part or "measured" for part in parts]
        rules += [] if alone else [f"\\cmidrule(lr){{{place}-{place + len(parts) - 1}}}"]
        place += len(parts)
    yield f"{' & '.join(above)} \\\\"
    yield "".join(rules)
    yield f"{' & '.join(below)} \\\\"


def _runs(row: Row) -> Iterator[str]:
    for origin in row.origins:
        words = (origin.identity, origin.state, origin.version, origin.date, origin.machine)
        yield f"% {one_line(f'{row.label}: run ' + ', '.join(word for word in words if word))}"


def _show(cell: Cell) -> str:
    return f"\\textbf{{{escape(cell.text)}}}" if cell.best else escape(cell.text)
