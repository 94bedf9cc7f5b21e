import os
import random
import signal

import numpy as np
import pytest
import torch
from coco_tree import write_coco_tree

from pvt_bench.datasets.coco.reader import Coco
from pvt_bench.datasets.loading import (
    Seeded,
    Share,
    TrainingBatches,
    collate,
    eval_loader,
    train_loader,
)
from pvt_bench.errors import InputError


class Draws(torch.utils.data.Dataset):
    """Samples of the three random generators."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        numbers = [torch.rand(()).item(), np.random.rand(), random.random()]  # noqa: NPY002
        return torch.tensor(numbers), {"index": torch.tensor(index)}


class WorkerState(Draws):
    def __getitem__(self, index):
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        return torch.tensor([torch.get_num_threads(), ignored, os.getpid()]), {}


@pytest.fixture
def coco(tmp_path):
    return Coco("coco", str(write_coco_tree(tmp_path)), 96, 160, 0.5)


def _samples(loader):
    return [
        (target["index"].item(), tuple(image.tolist()))
        for images, targets in loader
        for image, target in zip(images, targets, strict=True)
    ]


def test_an_epoch_is_a_permutation_of_its_own():
    batches = list(TrainingBatches(1000, 100, seed=1, first=0, stop=20))
    epochs = [[key for batch in batches[start : start + 10] for key in batch] for start in (0, 10)]
    for number, keys in enumerate(epochs):
        assert {epoch for epoch, *_ in keys} == {number}
        assert sorted(index for _, index, _ in keys) == list(range(1000))
    orders = [[index for _, index, _ in keys] for keys in epochs]
    assert orders[0] != orders[1]
    assert list(TrainingBatches(1000, 100, seed=1, first=0, stop=20)) == batches
    assert list(TrainingBatches(1000, 100, seed=2, first=0, stop=20)) != batches


@pytest.mark.parametrize("first", [0, 1, 3, 4, 7])
def test_a_resume_gets_the_batches_that_were_left(first):
    whole = list(TrainingBatches(10, 3, seed=1, first=0, stop=7))
    rest = TrainingBatches(10, 3, seed=1, first=first, stop=7)
    assert len(rest) == 7 - first
    assert list(rest) == whole[first:]


def test_a_sample_depends_on_seed_epoch_and_index_only():
    seeded = Seeded(Draws(), seed=7)
    first = seeded[2, 5, 0][0]
    torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    assert torch.equal(seeded[2, 5, 0][0], first)
    for other in (
        seeded[2, 6, 0],
        seeded[3, 5, 0],
        seeded[5, 2, 0],
        Seeded(Draws(), seed=8)[2, 5, 0],
    ):
        assert not torch.isclose(other[0], first).any()


def test_the_generators_of_the_training_are_left_alone():
    def draw():
        return torch.rand(()).item(), np.random.rand(), random.random()  # noqa: NPY002

    def seed():
        torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002

    seed()
    expected = draw()
    seed()
    _samples(train_loader(Draws(), 2, seed=3, workers=0, first=0, stop=5))
    assert draw() == expected


def test_workers_and_a_resume_change_nothing():
    expected = _samples(train_loader(Draws(), 3, seed=5, workers=0, first=0, stop=6))
    assert len(expected) == 18
    assert _samples(train_loader(Draws(), 3, seed=5, workers=2, first=0, stop=6)) == expected
    resumed = train_loader(Draws(), 3, seed=5, workers=2, first=4, stop=6)
    assert _samples(resumed) == expected[12:]


def test_evaluation_yields_every_image_once_in_order(coco):
    loader = eval_loader(coco.detection("val"), batch_size=4, workers=2)
    batches = list(loader)
    assert [len(images) for images, _ in batches] == [4, 4, 1]
    ids = [target["image_id"].item() for _, targets in batches for target in targets]
    assert ids == list(range(1, 10))


def test_batches_of_detection_hold_images_of_their_own_size(coco):
    loader = train_loader(
        coco.detection("train", masks=True), 4, seed=0, workers=0, first=0, stop=1
    )
    images, targets = next(iter(loader))
    assert len(images) == len(targets) == 4
    for image, target in zip(images, targets, strict=True):
        assert target["masks"].shape[1:] == image.shape[1:]


def test_workers_use_one_thread_and_leave_the_interrupt_to_the_main_process():
    (states, _), *_ = train_loader(WorkerState(), 4, seed=0, workers=2, first=0, stop=2)
    for threads, ignored, process in (state.tolist() for state in states):
        assert (threads, ignored) == (1, 1)
        assert process != os.getpid()


@pytest.mark.parametrize("make", [train_loader, eval_loader])
def test_an_input_error_in_a_worker_arrives_clean(coco, make):
    dataset = coco.detection("train")
    for path in (coco.root / "train2017").iterdir():
        path.write_bytes(path.read_bytes()[:400])
    options = {"seed": 0, "first": 0, "stop": 2} if make is train_loader else {}
    iterator = iter(make(dataset, batch_size=2, workers=2, **options))
    with pytest.raises(InputError) as caught:
        next(iterator)
    # An iterator that raised is left to the garbage collector, and then waits 5 s for each worker.
    iterator._shutdown_workers()
    message = str(caught.value)
    assert message.startswith("The image ")
    assert message.endswith("again.")
    assert "Traceback" not in message
    assert "\n" not in message


def test_collate_keeps_lists():
    images, targets = collate([(torch.zeros(3, 4, 5), {"a": torch.ones(1)})] * 2)
    assert [image.shape for image in images] == [(3, 4, 5)] * 2
    assert targets == [{"a": torch.ones(1)}] * 2


def test_repeated_augmentation_repeats_images_and_keeps_the_length():
    batches = list(TrainingBatches(12, 6, seed=0, first=0, stop=2, repeats=3))
    keys = [key for batch in batches for key in batch]
    images = [index for _, index, _ in keys]
    assert [copy for *_, copy in keys] == [0, 1, 2] * 4
    assert images[::3] == images[1::3] == images[2::3]
    assert len(set(images)) == 4


def test_copies_of_an_image_are_augmented_by_themselves():
    dataset = Seeded(Draws(), seed=0)
    first, second = dataset[0, 4, 0][0], dataset[0, 4, 1][0]
    assert not torch.equal(first, second)
    assert torch.equal(first, dataset[0, 4, 0][0])


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_each_batch_of_the_training(processes):
    whole = list(TrainingBatches(24, 6, seed=0, first=1, stop=5))
    parts = [
        list(TrainingBatches(24, 6, 0, 1, 5, share=Share(rank, processes)))
        for rank in range(processes)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(batch) == sorted(key for share in shares for key in share)
        assert len({len(share) for share in shares}) == 1


def _batches(loader):
    return [[target["index"].item() for target in targets] for _, targets in loader]


@pytest.mark.parametrize("workers", [0, 1])
def test_processes_evaluate_the_batches_of_one(workers):
    """Not other batches of the same images: of those a network's products may be rounded otherwise.

    Of four processes one has no batch, and still goes through a step.
    """
    whole = _batches(eval_loader(Draws(), 4, workers))
    assert whole == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    parts = [_batches(eval_loader(Draws(), 4, workers, Share(rank, 4))) for rank in range(4)]
    assert parts == [[whole[0]], [whole[1]], [whole[2]], [[]]]
    parts = [_batches(eval_loader(Draws(), 4, workers, Share(rank, 2))) for rank in range(2)]
    assert parts == [[whole[0], whole[2]], [whole[1]]]
