"""What makes reading fast leaves what is read as it is."""

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from imagenet_tree import WNIDS, write_imagenet_tree
from torchvision.transforms import functional as F

from pvt_bench.config.folders import data_dir
from pvt_bench.datasets.imagenet import files as imagenet_files
from pvt_bench.datasets.imagenet.reader import Erasing, ImageNet, to_float
from pvt_bench.datasets.loading import Seeded
from pvt_bench.errors import InputError

OPTIONS: dict[str, Any] = {
    "size": 32,
    "test_resize": 36,
    "interpolation": "bicubic",
    "scale": (0.08, 1.0),
    "ratio": (0.75, 1.33),
    "flip": 0.5,
    "color_jitter": None,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "random_erasing": 0.25,
}


def imagenet(root: Path, index: Path | None = None) -> ImageNet:
    return ImageNet("imagenet", str(root), index=str(index) if index else None, **OPTIONS)


def test_pixels_are_those_of_torchvision(tmp_path: Path) -> None:
    dataset = imagenet(write_imagenet_tree(tmp_path))
    image = dataset.classification("val").load(0)[0]
    assert image.is_contiguous()
    noise = F.to_pil_image(torch.randint(256, (3, 40, 30), dtype=torch.uint8))
    assert torch.equal(to_float(noise), F.to_tensor(noise))


def test_what_is_not_erased_stays_to_the_bit() -> None:
    image = torch.rand(3, 64, 64)
    for seed in range(20):
        random.seed(seed)
        erased = Erasing(1.0)(image.clone())
        changed = (erased != image).all(0)
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert torch.equal(erased[:, ~inside], image[:, ~inside])
        assert 0 < inside.sum() < 64 * 64 / 2


def test_a_sample_is_the_same_in_whatever_batch(tmp_path: Path) -> None:
    """A batch saves and restores the generators once, not each sample."""
    seeded = Seeded(imagenet(write_imagenet_tree(tmp_path)).classification("train"), seed=1)
    keys = [(3, index, copy) for index in (0, 5, 2) for copy in (0, 1)]
    alone = [seeded[key][0] for key in keys]
    for batch in (keys, keys[::-1]):
        for key, (image, _) in zip(batch, seeded.__getitems__(batch), strict=True):
            assert torch.equal(image, alone[keys.index(key)])


def test_the_files_are_listed_once_for_the_check_and_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = imagenet(write_imagenet_tree(tmp_path / "tree"), tmp_path / "index")
    listed: list[str] = []
    list_images = imagenet_files._images

    def watched(folder: Path, left_out: Counter[str]) -> dict[bytes, int]:
        listed.append(folder.name)
        return list_images(folder, left_out)

    monkeypatch.setattr(imagenet_files, "_images", watched)
    for _ in range(2):
        dataset.quick_check("classification", "train")
        dataset.classification("train")
    assert sorted(listed) == sorted(WNIDS)


def test_an_empty_class_is_refused_also_from_the_kept_list(tmp_path: Path) -> None:
    dataset = imagenet(write_imagenet_tree(tmp_path / "tree"), tmp_path / "index")
    dataset.quick_check("classification", "train")
    for path in (dataset.root / "train" / WNIDS[1]).iterdir():
        path.unlink()
    for _ in range(2):
        with pytest.raises(InputError, match=f"class folder without images: train/{WNIDS[1]}/"):
            dataset.quick_check("classification", "train")


def test_the_benchmark_of_reading_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_dir("benchmarks")
    if not folder.is_dir():
        pytest.skip("benchmarks are not installed with the package")
    monkeypatch.syspath_prepend(folder)
    import reading

    threads = torch.get_num_threads()
    monkeypatch.setattr(
        sys, "argv", ["reading.py", "--images", "32", "--batch-size", "8", "--pairs", "2"]
    )
    reading.main()
    torch.set_num_threads(threads)
    assert "times as fast" in capsys.readouterr().out
