"""Compare how fast our ImageNet pipeline and timm's loader read images for training.

    python benchmarks/reading.py --images 512 --pairs 16

Both read the same JPEGs of 500 x 375 pixels, cropped at random from two photographs that
scikit-learn ships, and apply the same augmentation: a random resized crop, RandAugment and random
erasing. Each has one reading process. They take turns, so that a busy machine slows both alike; a
turn is timed from the first batch to the last. The table shows medians over all turns, and the
median and quartiles of the ratio between the two turns of a pair.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_loader
from timm.data.dataset import ImageDataset

from pvt_bench.config.folders import config_dir
from pvt_bench.datasets.imagenet.reader import ImageNet
from pvt_bench.datasets.loading import train_loader

WIDTH, HEIGHT = 500, 375
CLASSES = 8

Loader = Callable[[int], Iterable[Any]]


def write_images(root: Path, images: int) -> float:
    """Write a tree in ImageNet's layout; its mean size of a file in kilobytes."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    sizes = []
    for number in range(images):
        photograph = photographs[number % len(photographs)]
        left = int(rng.integers(photograph.width - WIDTH))
        top = int(rng.integers(photograph.height - HEIGHT))
        path = root / "train" / f"n{number % CLASSES:08d}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = photograph.crop((left, top, left + WIDTH, top + HEIGHT))
        part.save(path, quality=96)
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes) / 1e3


def our_loader(root: Path, options: dict[str, Any], batch_size: int) -> Loader:
    """The pipeline of dataset=imagenet."""
    view = ImageNet(**options | {"root": str(root), "index": None}).classification("train")
    steps = len(view) // batch_size

    def start(turn: int) -> Iterable[Any]:
        return train_loader(view, batch_size, turn, workers=1, first=0, stop=steps)

    return start


def timm_loader(root: Path, options: dict[str, Any], batch_size: int) -> Loader:
    """timm's loader with the same options."""

    def start(turn: int) -> Iterable[Any]:
        torch.manual_seed(turn)
        loader: Iterable[Any] = create_loader(
            ImageDataset(str(root / "train")),
            input_size=(3, options["size"], options["size"]),
            batch_size=batch_size,
            is_training=True,
            use_prefetcher=False,
            scale=options["scale"],
            ratio=options["ratio"],
            hflip=options["flip"],
            color_jitter=options["color_jitter"],
            auto_augment=options["auto_augment"],
            re_prob=options["random_erasing"],
            re_mode="pixel",
            interpolation=options["interpolation"],
            num_workers=1,
            persistent_workers=False,
        )
        return loader

    return start


def images_per_second(batches: Iterable[Any], batch_size: int) -> float:
    """How many images come after the first batch, which waits for the process to start."""
    iterator = iter(batches)
    next(iterator)
    start, count = time.perf_counter(), 0
    for _ in iterator:
        count += batch_size
    return count / (time.perf_counter() - start)


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="of the tree, read in a turn")
    parser.add_argument("--pairs", type=int, default=16, help="turns of each loader, at least 2")
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = OmegaConf.load(config_dir() / "dataset" / "imagenet.yaml")
    config.results_dir = "."
    options = {str(k): v for k, v in OmegaConf.to_object(config).items()}  # type: ignore[union-attr]
    for key in ("_target_", "results_dir"):
        del options[key]
    with tempfile.TemporaryDirectory() as folder:
        size = write_images(Path(folder), arguments.images)
        print(f"{arguments.images} JPEGs of {WIDTH} x {HEIGHT} pixels, {size:.0f} kB each")
        loaders = {
            "timm": timm_loader(Path(folder), options, arguments.batch_size),
            "ours": our_loader(Path(folder), options, arguments.batch_size),
        }
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for turn in range(arguments.pairs):
            # What runs second finds the files in the memory of the operating system.
            for name in sorted(loaders, reverse=turn % 2 == 0):
                batches = loaders[name](turn)
                rates[name].append(images_per_second(batches, arguments.batch_size))
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):.1f} images/s")
    ratios = [ours / timm for ours, timm in zip(rates["ours"], rates["timm"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"ours is {median:.2f} times as fast (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
