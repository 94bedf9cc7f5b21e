import gc
from multiprocessing.reduction import ForkingPickler
from pickle import loads

import torch
from torch.utils.data import DataLoader

from pvt_bench.datasets.batches import Batch


def _sample(number):
    generator = torch.Generator().manual_seed(number)
    height, width = 5 + number, 7 + 2 * number
    image = torch.rand(3, height, width, generator=generator)
    return image, {
        "boxes": torch.rand(number, 4, generator=generator),
        "labels": torch.arange(number),
        "masks": torch.rand(number, height, width, generator=generator) > 0.5,
        "segments": torch.randint(0, 255, (height, width), dtype=torch.uint8, generator=generator),
        "image_id": torch.tensor(number),
        **({"extra": torch.ones(2)} if number == 1 else {}),
    }


def _collate(samples):
    images, targets = zip(*samples, strict=True)
    return Batch((list(images), list(targets)))


def _same(batch, samples):
    images, targets = batch
    for image, target, (expected, others) in zip(images, targets, samples, strict=True):
        assert torch.equal(image, expected)
        assert image.dtype == expected.dtype
        assert list(target) == list(others)
        for key, value in others.items():
            assert target[key].dtype == value.dtype
            assert target[key].shape == value.shape
            assert torch.equal(target[key], value)


def test_a_batch_arrives_as_it_was():
    samples = [_sample(number) for number in range(6)]
    samples.append((samples[0][0].permute(0, 2, 1), {}))
    arrived = loads(ForkingPickler.dumps(_collate(samples)))
    assert type(arrived) is tuple
    _same(arrived, samples)


def test_all_of_a_batch_lies_in_one_piece():
    images, targets = loads(ForkingPickler.dumps(_collate([_sample(n) for n in range(4)])))
    tensors = [*images, *(value for target in targets for value in target.values())]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}) == 1
    assert all(tensor.data_ptr() % 16 == 0 for tensor in tensors if tensor.numel())


def test_batches_of_workers_are_those_of_the_main_process():
    samples = [_sample(number) for number in range(8)]
    loaders = [
        DataLoader(samples, batch_size=3, num_workers=workers, collate_fn=_collate)
        for workers in (0, 2)
    ]
    for alone, sent in zip(*loaders, strict=True):
        assert isinstance(alone, Batch)
        _same(sent, list(zip(*alone, strict=True)))


def test_a_batch_may_be_changed_and_outlives_its_worker():
    samples = [_sample(number) for number in range(4)]
    (batch,) = DataLoader(samples, batch_size=4, num_workers=1, collate_fn=_collate)
    gc.collect()
    batch[0][0].add_(1)
    assert torch.equal(batch[0][0], samples[0][0] + 1)
    _same((batch[0][1:], batch[1][1:]), samples[1:])
