"""Runs that hold a sweep's cells in MLflow: one in each experiment that the cells belong to.

Where MLflow cannot be reached that is a warning, no more.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pvt_bench.tracking.describing import ENDED, describe_unfinished, tags_at_end
from pvt_bench.tracking.publishing import Presentation, source_tags
from pvt_bench.tracking.reaching import exclusive, open_store, reason
from pvt_bench.tracking.reading import read_status
from pvt_bench.tracking.views import sweep_view

PARENT_TAG = "mlflow.parentRunId"

logger = logging.getLogger(__name__)


def open_parents(
    uri: str,
    results_dir: Path,
    sweep: str,
    experiments: Mapping[str, Sequence[str]],
    typed: Sequence[str],
    swept: Sequence[str] = (),
) -> dict[str, str]:
    """Create the store, the experiments and the parents, before any cell starts.

    experiments: main metrics of each; typed: the words of the sweep's command; swept: the dotted
    keys that differ between the cells.

    The ids of the parents by experiment; none where the store does not answer.
    """
    parents: dict[str, str] = {}
    with _failure_told(), exclusive(uri):
        store = open_store(uri, results_dir)
        for experiment, metrics in experiments.items():
            place = store.experiment(experiment)
            run = store.open_run(place, sweep, None, f"sweep {sweep}")
            tags = source_tags(typed) | {"sweep": sweep, "kind": "sweep"}
            store.set_tags(run.info.run_id, tags)
            parents[experiment] = run.info.run_id
            store.add_view(place, sweep_view(sweep, run.info.run_id, swept, metrics))
    return parents


def adopt(uri: str, results_dir: Path, parents: Mapping[str, str], anew: bool = False) -> None:
    """Put runs that were there before under their parents, unless they have one.

    parents: by the id of the child; anew: also those that have one, which is gone.
    """
    if not parents:
        return
    with _failure_told(), exclusive(uri):
        store = open_store(uri, results_dir)
        for child, parent in parents.items():
            store.tag_if_there(child, PARENT_TAG, parent, over=anew)


def close_parents(
    uri: str,
    results_dir: Path,
    parents: Iterable[str],
    state: str,
    note: str,
    files: Sequence[Path],
) -> None:
    """End parents as FINISHED, FAILED or KILLED, with the sweep's table.

    note: in Markdown, the run's description.
    """
    with _failure_told(), exclusive(uri):
        store = open_store(uri, results_dir)
        for parent in parents:
            store.describe(parent, note)
            for file in files:
                store.log_artifact(parent, file, None)
            store.terminate(parent, state)


def end_runs(uri: str, results_dir: Path, records: Mapping[str, Path]) -> None:
    """End the runs of cells whose processes could not; records by the id of the run."""
    with _failure_told(), exclusive(uri):
        store = open_store(uri, results_dir)
        for run_id, directory in records.items():
            status, shown = read_status(directory), Presentation.read(directory)
            state = status["state"]
            if state not in ENDED:
                continue  # Another process has begun it anew.
            if shown is not None:
                store.describe(run_id, describe_unfinished(directory, shown, state, status))
            store.set_tags(run_id, tags_at_end(state, status))
            store.terminate(run_id, ENDED[state])


@contextmanager
def _failure_told() -> Iterator[None]:
    try:
        yield
    # As in the mirror: whatever a store, a driver or a network may raise.
    except Exception as error:
        logger.warning(
            "MLflow does not take the sweep (%s); its cells are recorded all the same.",
            reason(error),
        )
