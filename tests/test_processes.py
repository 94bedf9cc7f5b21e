"""Scores of two processes are those of one, bit for bit, on an odd number of images."""

from pathlib import Path

import pytest
import torch
from test_classification import Lookup, View
from torch import distributed, multiprocessing

from pvt_bench.datasets.loading import Share, eval_loader
from pvt_bench.tasks.classification import Classification
from pvt_bench.training.processes import count, gather, rank


def score(view: View, directory: Path) -> None:
    task = Classification(Lookup(view), None, view)
    task.on_validation_start()
    for batch in eval_loader(view, 4, 0, Share(rank(), count())):
        task.validation_step(batch, 0)
    assert len(task.results) < len(view) or count() == 1
    task.on_validation_end()
    if rank() == 0:
        torch.save(task.score(directory), directory / "scores.pt")


def work(number: int, processes: int, folder: Path) -> None:
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", store, rank=number, world_size=processes)
    score(View(), folder)
    assert gather([number]) == list(range(processes))
    distributed.destroy_process_group()


@pytest.mark.parametrize("processes", [2])
def test_scores_do_not_depend_on_the_number_of_processes(tmp_path: Path, processes: int) -> None:
    alone, together = tmp_path / "one", tmp_path / "more"
    alone.mkdir()
    together.mkdir()
    score(View(), alone)
    multiprocessing.spawn(work, (processes, together), processes)
    assert torch.load(alone / "scores.pt") == torch.load(together / "scores.pt")
    for name in ("predictions.csv", "per_class.csv", "confusion.csv"):
        assert (alone / name).read_bytes() == (together / name).read_bytes()
