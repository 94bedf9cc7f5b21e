"""From runs to the files of a report."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pvt_bench.report.formats.files import write_files
from pvt_bench.report.formats.latex import to_latex
from pvt_bench.report.formats.markdown import to_csv, to_markdown
from pvt_bench.report.formats.page import to_html
from pvt_bench.report.formats.terminal import show_table
from pvt_bench.report.options import Options
from pvt_bench.report.pictures.charts import Chart, table_charts
from pvt_bench.report.pictures.run_charts import run_charts, size_charts
from pvt_bench.report.sources.runs import Runs, load_runs
from pvt_bench.report.tables.comparison import build_tables
from pvt_bench.report.tables.filling import published_table
from pvt_bench.report.tables.layouts import Layout, load_layout
from pvt_bench.report.tables.rows import Table
from pvt_bench.screen import progress_bar, say

PICTURES = ("png", "svg")


def make_tables(runs: Runs, options: Options, name: str, command: str) -> list[Table]:
    """Build the tables: one of a layout, or those that the runs yield.

    name: of the files; command: what makes them.
    """
    if options.table:
        table = published_table(runs, load_layout(options.table), command)
        return [replace(table, name=name)]
    return build_tables(runs, options, name, command)


def make_files(
    tables: Sequence[Table], runs: Runs, formats: Sequence[str], name: str, directory: Path
) -> dict[str, str | bytes]:
    """Content of each file of the formats, by its name in a directory."""
    charts: list[Chart] = []
    if {*formats} & {"html", *PICTURES}:
        charts = make_charts(tables, runs)
    makers: dict[str, Callable[[], str]] = {
        "md": lambda: to_markdown(tables, directory),
        "csv": lambda: to_csv(tables),
        "tex": lambda: to_latex(tables),
        "html": lambda: to_html(tables, charts, tables[0].command, runs.source.place, directory),
    }
    wanted = [kind for kind in makers if kind in formats]
    contents: dict[str, str | bytes] = {f"{name}.{kind}": makers[kind]() for kind in wanted}
    pictures = [kind for kind in PICTURES if kind in formats]
    if pictures and charts:
        # Imported here: the other formats need no drawing.
        from pvt_bench.report.pictures.plots import render

        with progress_bar("drawing", len(charts)) as bar:
            for chart in charts:
                drawn = render(chart, pictures)
                contents |= {f"{name}/{chart.name}.{kind}": content for kind, content in drawn}
                bar.advance()
    return contents


def make_charts(tables: Sequence[Table], runs: Runs) -> list[Chart]:
    """Content of the pictures of a report."""
    charts = list(size_charts(runs))
    for table in tables:
        # Titles tell the pictures of several tables apart.
        prefix = re.sub(r"\W+", "_", f"{table.title} ", flags=re.ASCII) if len(tables) > 1 else ""
        charts += table_charts(table, prefix)
        charts += run_charts(table, runs.source, prefix)
    return [chart.visible() for chart in charts]


def write_published_table(
    results_dir: Path,
    layout: Layout,
    command: str,
    cells: Collection[tuple[str, ...]],
    records: Collection[Path],
) -> list[Path]:
    """Show and write a published table with the runs of one command; the paths.

    cells: model and the report's keys of each run; records: the directories of the runs.

    Raises:
        InputError: there is no such run, or the directory cannot be written.
    """
    runs = load_runs(results_dir, only=records)
    table = published_table(runs, layout, command, cells)
    # The command above the table says which runs they are.
    table = replace(table, rows=[replace(row, origins=()) for row in table.rows])
    show_table(table)
    for note in table.notes[bool(layout.report.note) :]:
        say(note)
    directory = results_dir / "tables"
    return write_files(directory, make_files([table], runs, ["md", "csv"], layout.name, directory))
