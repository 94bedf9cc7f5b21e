"""Loaders whose samples depend on seed, epoch and index only, and that can start at any step."""

import os
import random
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from pvt_bench.datasets.batches import Batch, Sent
from pvt_bench.datasets.views import View
from pvt_bench.screen import warn

Key = tuple[int, int, int]
Sample = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Share:
    """The part of each batch, or of an evaluation, that one of `processes` equal ones takes."""

    rank: int = 0
    processes: int = 1

    def of(self, items: Sequence[Any]) -> Sequence[Any]:
        """Every `processes`-th item; over all ranks each item once, none twice."""
        return items[self.rank :: self.processes]


class TrainingBatches(Sampler[list[Key]]):
    """Batches of keys (epoch, index, copy), one a step, from step `first` up to but without `stop`.

    The order of an epoch is drawn from (seed, epoch), and where to go on follows from the step
    alone: nothing is stored, and a resumed run gets the batches that an uninterrupted one would
    have got. The samples that do not fill the last batch of an epoch are left out. With `repeats`
    an epoch has a share of the images, each that many times in a row; its length stays.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        first: int,
        stop: int,
        repeats: int = 1,
        share: Share = Share(),
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.first = first
        self.stop = stop
        self.repeats = repeats
        self.share = share

    def __iter__(self) -> Iterator[list[Key]]:
        of_epoch, order = -1, []
        for step in range(self.first, self.stop):
            epoch, batch = divmod(step, self.length // self.batch_size)
            if epoch != of_epoch:
                of_epoch, order = epoch, self._order(epoch)
            start = batch * self.batch_size
            places = range(start, start + self.batch_size)
            keys = [(epoch, order[p // self.repeats], p % self.repeats) for p in places]
            yield list(self.share.of(keys))

    def __len__(self) -> int:
        return self.stop - self.first

    def _order(self, epoch: int) -> list[int]:
        order: list[int] = (
            np.random.default_rng([self.seed, epoch]).permutation(self.length).tolist()
        )
        return order


class Seeded(Dataset[Any]):
    """A dataset whose sample (epoch, index, copy) is the same in whatever process and order."""

    def __init__(self, dataset: View, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[Key]) -> list[Any]:
        """The samples of a batch, for which torch's loaders ask at once."""
        # Once a batch: NumPy's generator is saved and restored in a tenth of a millisecond.
        with _generators_kept():
            return [self._draw(*key) for key in keys]

    def _draw(self, epoch: int, index: int, copy: int) -> Any:
        _seed(self.seed, epoch, index, copy)
        return self.dataset[index]


def train_loader(
    dataset: View,
    batch_size: int,
    seed: int,
    workers: int,
    first: int,
    stop: int,
    repeats: int = 1,
    share: Share = Share(),
) -> DataLoader[Any]:
    """The batches of the steps from `first` up to but without `stop`; at least one must fill.

    `batch_size` counts the images of all processes; `share` is this one's part of them.
    """
    length = len(dataset)
    batches = TrainingBatches(length, batch_size, seed, first, stop, repeats, share)
    return _loader(Seeded(dataset, seed), workers, batch_sampler=batches)


def eval_loader(
    dataset: View,
    batch_size: int,
    workers: int,
    share: Share = Share(),
) -> DataLoader[Any]:
    """Every image of this process's share once, in order; the last batch may be smaller.

    Batches are shared and not images: networks round products by the size of the batch, and
    scores must not depend on the number of processes. One that is left without a batch gets an
    empty one, so that all go through the same steps.
    """
    images = range(len(dataset))
    batches = [images[start : start + batch_size] for start in images[::batch_size]]
    return _loader(dataset, workers, batch_sampler=share.of(batches) or [[]])


def collate(samples: list[Sample]) -> Batch | Sent:
    """Images of different sizes as a list, and their targets as another; a reader sends them."""
    batch = Batch(([image for image, _ in samples], [target for _, target in samples]))
    return batch if get_worker_info() is None else Sent(batch)


def _loader(dataset: Dataset[Any], workers: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        num_workers=_possible(workers),
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_prepare_reader,
        # Starting an iteration draws a number; from here, and not from the training's generator.
        generator=torch.Generator(),
        **options,
    )


def _possible(workers: int) -> int:
    """How many processes can read: `workers`, or none where semaphores cannot be made."""
    context = get_context()
    try:
        # torch makes one for each process, and as many semaphores as two more have for all.
        [context.Queue() for _ in range(workers + 2)]
    except OSError as error:
        warn(
            f"trainer.workers={workers} is not possible ({error}): /dev/shm has no room for "
            "semaphores. The main process reads the images itself, which is slower. Start the "
            "container with --shm-size=8g or --ipc=host, or use fewer trainer.workers."
        )
        return 0
    return workers


def _prepare_reader(worker: int) -> None:
    # What cannot be sent is otherwise printed and forgotten, and waited for without end.
    queue: Any = Queue
    queue._on_queue_feeder_error = staticmethod(_give_up)
    # Ctrl-C and a stop reach the whole process group; the main process acts on them, and ends the
    # workers by SIGTERM, which they must therefore still obey: they leave the group instead.
    os.setpgrp()
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _give_up(error: BaseException, item: Any) -> None:
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


def _seed(*words: int) -> None:
    """Seed torch's, NumPy's and Python's generators from `words`."""
    torch_seed, numpy_seed, python_seed = np.random.SeedSequence(words).generate_state(3)
    torch.default_generator.manual_seed(int(torch_seed))
    np.random.seed(int(numpy_seed))  # noqa: NPY002
    random.seed(int(python_seed))


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Afterwards the three generators are as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
