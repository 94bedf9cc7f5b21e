"""The runs that hold a sweep's cells in MLflow: one in each experiment that the cells belong to."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pvt_bench.tracking.mlflow import NOTE_TAG, artifact_root, exclusive, quiet_and_quick, reason

if TYPE_CHECKING:
    from pvt_bench.tracking.store import Store

PARENT_TAG = "mlflow.parentRunId"

logger = logging.getLogger(__name__)


def open_parents(
    uri: str, results_dir: Path, sweep: str, experiments: Sequence[str], command: str
) -> dict[str, str]:
    """Create the store, the experiments and the parents, before any cell starts.

    The ids of the parents by experiment; none where the store does not answer.
    """
    parents: dict[str, str] = {}

    def work(store: "Store") -> None:
        for experiment in dict.fromkeys(experiments):
            run = store.open_run(store.experiment(experiment), sweep, None, f"sweep {sweep}")
            store.set_tags(run.info.run_id, {"sweep": sweep, "command": command, "kind": "sweep"})
            parents[experiment] = run.info.run_id

    _reach(uri, results_dir, work)
    return parents


def adopt(uri: str, results_dir: Path, parents: Mapping[str, str], anew: bool = False) -> None:
    """Put runs that were there before under their parents, unless they have one.

    parents: by the id of the child; anew: also those that have one, which is gone.
    """

    def work(store: "Store") -> None:
        for child, parent in parents.items():
            store.set_run_tag(child, PARENT_TAG, parent, over=anew)

    if parents:
        _reach(uri, results_dir, work)


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

    def work(store: "Store") -> None:
        for parent in parents:
            store.set_tags(parent, {NOTE_TAG: note})
            for file in files:
                store.log_artifact(parent, file, None)
            store.terminate(parent, state)

    _reach(uri, results_dir, work)


def end_runs(uri: str, results_dir: Path, states: Mapping[str, str]) -> None:
    """End the runs of cells whose processes could not; states by the id of the run."""

    def work(store: "Store") -> None:
        for run_id, state in states.items():
            store.terminate(run_id, state)

    _reach(uri, results_dir, work)


def _reach(uri: str, results_dir: Path, work: Callable[["Store"], None]) -> None:
    """Do some work in the store; where it cannot be done that is a warning, no more."""
    quiet_and_quick()
    from pvt_bench.tracking.store import Store

    try:
        with exclusive(uri):
            work(Store(uri, artifact_root(uri, results_dir)))
    # As in the mirror: whatever a store, a driver or a network may raise.
    except Exception as error:
        logger.warning(
            "MLflow does not take the sweep (%s); its cells are recorded all the same.",
            reason(error),
        )
