"""The runs side by side, as tables, pictures and a page.

    python -m pvt_bench.report                                  every table that the runs make
    python -m pvt_bench.report table=coco_retinanet             measured next to published
    python -m pvt_bench.report where=model.name=pvt_* columns=gflops,AP sort=-AP
    python -m pvt_bench.report tracking.uri=http://host:5000    from an MLflow store

Prints the tables and writes them to `results/tables/` as Markdown, CSV, LaTeX and one HTML page,
with plots as PNG and SVG; formats=md,csv writes less. Exit code 0: done; 1: check=true, and a
figure misses the published one; 2: the command cannot be used; 130: interrupted.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pvt_bench.commands import DONE, FAILED, run_command
from pvt_bench.errors import InputError
from pvt_bench.report.options import Options, parse
from pvt_bench.report.tables.rows import Table
from pvt_bench.screen import complain, say, warn
from pvt_bench.tracking.addresses import without_password


def main(words: Sequence[str]) -> int:
    """Make the report that the command line asks for; returns the exit code."""
    help_text = f"{__doc__}\n{(Options.__doc__ or '').strip()}"
    return run_command(
        words, make_typed, help_text, "interrupted; files that were written are whole"
    )


def make_typed(words: Sequence[str]) -> int:
    """Make the report that is typed; returns the exit code."""
    return make(parse(words), _command(words))


def _command(words: Sequence[str]) -> str:
    typed = [without_password(word) for word in words]
    return shlex.join(["python", "-m", "pvt_bench.report", *typed])


def make(options: Options, command: str) -> int:
    """Load, show and write a report; returns the exit code.

    command: stands above each table, as what makes it.
    """
    # Here, so that a wrong word is answered at once.
    from pvt_bench.report.formats.files import check_writable, write_files
    from pvt_bench.report.formats.terminal import show_table
    from pvt_bench.report.making import make_files, make_tables
    from pvt_bench.report.sources.runs import load_runs
    from pvt_bench.report.tables.selection import select

    directory = Path(options.output_dir or Path(options.results_dir) / "tables").expanduser()
    name = options.name or options.table or "report"
    runs = load_runs(options.results_dir, options.tracking.uri)
    for sentence in runs.left_out:
        warn(sentence)
    runs = select(runs, options.where)
    tables = make_tables(runs, options, name, command)
    check_writable(directory)
    for table in tables:
        show_table(table)
        # A published table has many remarks; its files hold them.
        for note in (*table.notes, *(() if options.table else table.remarks)):
            say(note)
    code = check(tables, options) if options.check else DONE
    paths = write_files(directory, make_files(tables, runs, options.formats, name, directory))
    pictures = [path for path in paths if path.parent != directory]
    texts = ", ".join(path.name for path in paths if path not in pictures)
    say(f"written to {directory}: {texts}")
    if pictures:
        say(f"and {len(pictures)} pictures to {pictures[0].parent}")
    return code


def check(tables: Sequence[Table], options: Options) -> int:
    """Compare measured with published figures; returns the exit code.

    Raises:
        InputError: there is nothing to compare.
    """
    from pvt_bench.report.tables.gaps import misses
    from pvt_bench.report.tables.layouts import load_layout

    layout = load_layout(str(options.table or options.published)).report
    tolerance = layout.tolerance if options.tolerance is None else options.tolerance
    missed, compared = [], 0
    for table in tables:
        sentences, count = misses(layout, table, tolerance)
        missed += sentences
        compared += count
    if not compared:
        raise InputError(
            "check=true: there is no measured figure next to a published one. Make the runs first: "
            f"python -m pvt_bench table={options.table or options.published}"
        )
    for sentence in missed:
        complain(f"missed: {sentence}")
    say(f"{compared} figures compared, {len(missed)} missed (scores by more than {tolerance:g})")
    return FAILED if missed else DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
