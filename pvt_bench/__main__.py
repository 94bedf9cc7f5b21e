"""The command: `python -m pvt_bench model=pvt_small task=coco_retinanet`.

The exit codes: 0 done, 1 failed, 2 something typed or given cannot be used, 130 interrupted.
"""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import hydra

from pvt_bench.commands import DONE, FAILED, INTERRUPTED, print_text, report, run_command
from pvt_bench.config.checks import check_early
from pvt_bench.config.choices import SEARCHPATH, typed_experiment
from pvt_bench.config.command_line import (
    Composed,
    asks_hydra,
    check_named,
    complete,
    compose_cells,
    first_lines,
    sweep_title,
    swept_keys,
)
from pvt_bench.config.completion import asks_completion, completion_script
from pvt_bench.config.folders import config_dir
from pvt_bench.config.help_page import help_page
from pvt_bench.config.launchers import LauncherName
from pvt_bench.config.registry import register
from pvt_bench.config.schema import Config, Mode, select
from pvt_bench.errors import InputError
from pvt_bench.processes import spin_briefly
from pvt_bench.screen import say
from pvt_bench.tracking.addresses import choose_uri, explain_uri, keep, reveal, without_password


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run_command(sys.argv[1:], run_typed, help_page))


def run_typed(words: Sequence[str]) -> int:
    """Do what the command line asks for; the exit code."""
    if asks_completion(words):
        script = completion_script(words, sys.argv[0], os.environ)
        return print_text(answer(words) if script is None else script)
    if asks_hydra(words):
        return print_text(answer(complete(words, os.environ)))
    check_named(words)
    return start(compose_cells(words), words)


def answer(words: Sequence[str]) -> str:
    """Hydra's answer to what is asked of it, such as --cfg job or --info.

    Raises:
        InputError: an option without its value, or with an unknown one.
    """
    sys.argv[1:] = words
    # It would print its errors itself and exit with 1 whatever happened.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()
    ask = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
    output, errors = StringIO(), StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            ask(lambda config: None)()
    except SystemExit as end:
        if end.code:
            what = errors.getvalue().strip().rpartition("error: ")[2]
            raise InputError(f"{what}. --hydra-help explains Hydra's options.") from end
    return output.getvalue()


def start(composed: Sequence[Composed], typed: Sequence[str]) -> int:
    """Run what was composed: one run in this process, or cells through the launcher."""
    config = composed[0].config
    if config.mode in (Mode.train, Mode.test):
        spin_briefly()
    # What is wrong is told before torch is imported, which takes seconds.
    choose_uri(config.tracking.uri, config.results_dir)
    check_early([each.config for each in composed])
    for sentence in explain_uri(config.tracking.uri, os.environ):
        say(sentence)
    for each in composed:
        if each.config.tracking.uri:
            reveal(keep(each.config.tracking.uri))  # Typed as it is shown, it needs its password.
            each.config.tracking.uri = without_password(each.config.tracking.uri)
    typed = [without_password(word) for word in typed]
    from pvt_bench import outcome
    from pvt_bench.run import Placing, run
    from pvt_bench.tracking.publishing import source_tags

    def line(config: Config) -> str:
        return first_lines(config, typed)

    alone = len(composed) == 1 and not typed_experiment(typed)
    if alone and config.launcher.name == LauncherName.in_process and config.trainer.devices == 1:
        outcome.show(run(config, line(config), Placing(tags=source_tags(typed))))
        return DONE
    return sweep(composed, typed, line)


def sweep(
    composed: Sequence[Composed],
    typed: Sequence[str],
    line: Callable[[Config], str],
) -> int:
    """Run cells through the launcher; 0 where all are done, or are left to a queue."""
    from pvt_bench import outcome
    from pvt_bench.launching.starting import failed, launch

    codes = [DONE]

    def run_here(run_cell: Callable[[], Any]) -> None:
        # Reported here, so that one cell's error does not end the others.
        try:
            outcome.show(run_cell(), as_line=len(composed) > 1)
        except Exception as error:
            codes.append(report(error))
            if codes[-1] == INTERRUPTED:
                raise KeyboardInterrupt from error

    swept = swept_keys([each.overrides for each in composed])
    title = sweep_title(typed, swept)
    ended = launch([each.config for each in composed], swept, title, typed, line, run_here)
    done = [
        (config, Path(config.results_dir, state.cell.place))
        for config, state in ended
        if state.status.get("result") is not None
    ]
    if done and typed_experiment(typed):
        tabulate(done, typed)
    return max(codes) or (FAILED if failed([state for _, state in ended]) else DONE)


def tabulate(done: Sequence[tuple[Config, Path]], typed: Sequence[str]) -> None:
    """Show and write a published table with the runs of this command.

    done: their configurations and records.
    """
    from omegaconf import OmegaConf

    from pvt_bench.report.making import write_published_table
    from pvt_bench.report.tables.layouts import load_layout

    _, name = typed_experiment(typed) or ("", "")
    config, _ = done[0]
    if config.report is None:
        return
    columns: Any = OmegaConf.to_object(config.report)
    searched = [word for word in typed if word.lstrip("+").startswith(f"{SEARCHPATH}=")]
    layout = load_layout(name, columns, searched)
    keys = ("model.name", *columns.keys)
    cells = {tuple(str(select(each, key)) for key in keys) for each, _ in done}
    # Where the results lie does not change them.
    words = [word for word in typed if not word.startswith("results_dir=")]
    command = shlex.join(["python", "-m", "pvt_bench", *words])
    records = {record for _, record in done}
    results = Path(config.results_dir)
    for path in write_published_table(results, layout, command, cells, records):
        say(f"table: {path}")


if __name__ == "__main__":
    main()
