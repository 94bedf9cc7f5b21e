"""Sweeps composed and launched by a test's own process, which has what a command would import."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
from conftest import SMALL
from mlflow.entities import Run

from pvt_bench.config.command_line import Composed, compose_cells, sweep_title, swept_keys
from pvt_bench.launching.starting import launch
from pvt_bench.launching.sweep import State, Sweep, find_sweep
from pvt_bench.tracking.metrics import MetricsFile

# Ten steps of the smallest classifier in a second; what each step logs can be counted.
TRAIN = (
    "model=pvt_small", "task=imagenet_classification", *SMALL, "model.drop_path=0", "trainer=cpu",
    "trainer.workers=0", "trainer.log_every=1", "schedule.batch_size=4",
)  # fmt: skip
COST = ("task=imagenet_classification", "mode=cost")


def run_here(run_cell: Callable[[], Any]) -> None:
    """Run a cell in this process; what goes wrong stands in its record."""
    try:
        run_cell()
    except Exception as error:
        print(error)


def start(*words: str) -> list[State]:
    """Launch the cells of a command line; how they stand when it would end."""
    return launch_all(compose_cells(["-m", *words]), words)


def launch_all(cells: Sequence[Composed], words: Sequence[str] = ()) -> list[State]:
    """Launch cells as one sweep."""
    swept = swept_keys([cell.overrides for cell in cells])
    title = sweep_title(words, swept)
    configs = [cell.config for cell in cells]
    ended = launch(configs, swept, title, words, lambda config: "dataset", run_here)
    return [state for _, state in ended]


def stand(states: Sequence[State]) -> dict[str, str]:
    """The word of each cell by its name."""
    return {state.cell.name: state.word for state in states}


def read_sweep(results: Path, title: str) -> Sweep:
    """The sweep of that title."""
    return Sweep.read(find_sweep(results, title))


def runs_in(results: Path) -> list[Run]:
    """All runs of the store."""
    client = mlflow.MlflowClient(f"sqlite:///{results}/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments))


def losses_in(record: Path) -> dict[int, float]:
    """The losses of a training by their steps; a step that is there twice is an error."""
    points = MetricsFile(record / "metrics.jsonl").read()
    steps = [
        (point.step, point.values["train/loss"]) for point in points if "train/loss" in point.values
    ]
    losses = dict(steps)
    assert len(losses) == len(steps), "a step is there twice"
    return losses
