"""From runs to the files of a report."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pvt_bench.report.formats.files import write_files
from pvt_bench.report.formats.latex import to_latex
from pvt_bench.report.formats.markdown import to_csv, to_markdown
from pvt_bench.report.formats.page import Part, to_html
from pvt_bench.report.formats.terminal import show_table
from pvt_bench.report.options import Options
from pvt_bench.report.pictures.charts import Chart, table_charts
from pvt_bench.report.pictures.run_charts import run_charts, size_charts
from pvt_bench.report.pictures.sheets import find_sheets
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
    charts: list[list[Chart]] = [[] for _ in tables]
    if {*formats} & {"html", *PICTURES}:
        charts = make_charts(tables, runs)

    def page() -> str:
        sheets = [find_sheets(table, runs.source) for table in tables]
        parts = [*map(Part, tables, charts, sheets)]
        return to_html(parts, tables[0].command, runs.source.place, directory)

    makers: dict[str, Callable[[], str]] = {
        "md": lambda: to_markdown(tables, directory),
        "csv": lambda: to_csv(tables),
        "tex": lambda: to_latex(tables),
        "html": page,
    }
    contents: dict[str, str | bytes] = {
        f"{name}.{kind}": make() for kind, make in makers.items() if kind in formats
    }
    every = [chart for of_table in charts for chart in of_table]
    return contents | _draw(every, [kind for kind in PICTURES if kind in formats], name)


def _draw(charts: Sequence[Chart], formats: Sequence[str], name: str) -> dict[str, bytes]:
    """Draw the pictures; their content by file name."""
    if not charts or not formats:
        return {}
    # Imported here: the other formats need no drawing.
    from pvt_bench.report.pictures.plots import render

    contents: dict[str, bytes] = {}
    with progress_bar("drawing", len(charts)) as bar:
        for chart in charts:
            drawn = render(chart, formats)
            contents |= {f"{name}/{chart.name}.{kind}": content for kind, content in drawn}
            bar.advance()
    return contents


def make_charts(tables: Sequence[Table], runs: Runs) -> list[list[Chart]]:
    """Content of the pictures of a report, by table."""
    charts: list[list[Chart]] = [[] for _ in tables]
    for task in sorted({*runs.table["task.name"].dropna()}):
        of_task = runs.keep(runs.table["task.name"] == task)
        charts[_place_of_sizes(tables, task)] += size_charts(of_task)
    for of_table, table in zip(charts, tables, strict=True):
        # Titles tell the pictures of several tables apart.
        prefix = re.sub(r"\W+", "_", f"{table.title} ", flags=re.ASCII) if len(tables) > 1 else ""
        of_table += table_charts(table, prefix)
        of_table += run_charts(table, runs.source, prefix)
    return [[chart.visible() for chart in of_table] for of_table in charts]


def _place_of_sizes(tables: Sequence[Table], task: str) -> int:
    """Index of the table below which a task's costs over the input size are drawn."""
    costs = {"task.name": task, "mode": "cost"}
    found = [n for n, table in enumerate(tables) if costs.items() <= table.protocol.items()]
    return found[-1] if found else len(tables) - 1


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
