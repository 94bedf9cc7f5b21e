"""Sends MLflow what it has missed.

    python -m pvt_bench.sync                      all runs under results_dir
    python -m pvt_bench.sync results_dir=PATH     those of other results
    python -m pvt_bench.sync uri=ADDRESS          to this store

Runs that a server did not take while it was down are sent, and a store that was
lost is built again. Each run goes to the store that it was logged to, unless
uri= names another. Results that were moved or copied from another machine get a
store of their own, or go to that of MLFLOW_TRACKING_URI. Runs that are still
running are left alone: they send by themselves.

Exit codes: 0 MLflow has everything; 1 something could not be sent; 2 the command
cannot be used.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pvt_bench.commands import DONE, FAILED, find_results, read_words, run_command
from pvt_bench.errors import InputError
from pvt_bench.launching.sweep import Sweep, look, read_sweeps
from pvt_bench.launching.watching import close, parents_of_cells
from pvt_bench.screen import progress_bar, say, warn
from pvt_bench.tracking.addresses import (
    VARIABLE,
    check_uri,
    choose_uri,
    keep,
    reveal,
    sqlite_file,
)
from pvt_bench.tracking.describing import ENDED
from pvt_bench.tracking.lease import AlreadyRunning
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.parent import adopt, open_parents
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.reading import find_records, read_status
from pvt_bench.tracking.record import Record


def main(words: Sequence[str]) -> int:
    """Send what the command line names; the exit code."""
    return run_command(words, send_typed, __doc__)


def send_typed(words: Sequence[str]) -> int:
    """Send the results that are typed; the exit code."""
    typed = dict(read_words(words, ("results_dir", "uri")))
    return send_all(find_results(typed), typed.get("uri"))


def send_all(results_dir: Path, uri: str | None) -> int:
    """Send every record; the exit code."""
    if not results_dir.is_dir():
        raise InputError(f"There is no directory {results_dir}. Use results_dir=PATH.")
    if uri is not None:
        check_uri(uri, "uri")
    elif os.environ.get(VARIABLE):
        say(
            f"{VARIABLE} is set: it takes what was logged nowhere yet. Other runs go where each "
            "was logged; uri=ADDRESS sends all to one store"
        )
    directories = find_records(results_dir)
    behind = 0
    with progress_bar("sending", len(directories)) as bar:
        for directory in directories:
            behind += not send(directory, uri, results_dir)
            bar.advance()
    sweeps, damaged = read_sweeps(results_dir)
    for sweep in sweeps:
        restore_parents(sweep, uri)
    say(f"{len(directories) - behind} of {len(directories)} runs are in MLflow")
    return FAILED if behind or damaged else DONE


def restore_parents(sweep: Sweep, uri: str | None) -> None:
    """Make the runs that hold a sweep's cells in MLflow anew, where the store has lost them."""
    address = keep(uri or _here(sweep.uri, sweep.results_dir))
    experiments = {cell.experiment: cell.metrics for cell in sweep.cells}
    parents = open_parents(
        address, sweep.results_dir, sweep.name, experiments, sweep.typed, sweep.swept
    )
    anew = parents != sweep.parents
    if anew:
        sweep = replace(sweep, parents=parents, uri=address)
        sweep.write()
    adopt(address, sweep.results_dir, parents_of_cells(sweep), anew)
    close(sweep, look(sweep))


def own_uri(directory: Path, results_dir: Path) -> str:
    """The store that a run was logged to; its password, if any, is that of the environment."""
    noted = str((read_status(directory).get("mlflow") or {}).get("uri") or "")
    return reveal(_here(noted, results_dir))


def _here(noted: str, results_dir: Path) -> str:
    """The address of a store as it was noted, or of the one here where results were moved: then
    the folder of the sqlite file is gone."""
    file = sqlite_file(noted)
    moved = file is not None and not file.parent.is_dir()
    return choose_uri(None, results_dir) if moved or not noted else noted


def send(directory: Path, uri: str | None, results_dir: Path) -> bool:
    """Bring MLflow up to one record, at `uri` or where it was logged to; whether it is.

    What is wrong with the record is told: the others go on.
    """
    try:
        shown = Presentation.read(directory)
        if shown is None:
            return True  # It never began: there is nothing that MLflow could have missed.
        address = uri or own_uri(directory, results_dir)
        with Record.reopen(directory) as record:
            mirror = Mirror(record, address, shown)
            state = record.status["state"]
            mirror.start()
            if state == "finished":
                mirror.publish()
            else:
                mirror.finish(state if state in ENDED else "interrupted")
            return not mirror.behind
    except AlreadyRunning as error:
        warn(f"left alone: {error}")
        return True
    except InputError as error:
        warn(f"not sent: {error}")
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
