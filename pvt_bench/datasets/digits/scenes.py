"""Scenes of real handwritten digits on canvases, drawn at random but the same every time.

The digits are the 1,797 images of 8 x 8 pixels that scikit-learn ships, the test part of the UCI
"Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, doi:10.24432/C50P49).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray
from PIL import Image

VERSION = 1  # of what is drawn
SCENES = {"train": 1000, "val": 200}
TRAIN_DIGITS = 1437  # of 1,797; no digit image is in both splits
SIDE = 96  # pixels of a scene
DIGIT_SIDES = (24, 56)  # pixels of the longer side of a digit's ink
CROWD_SIZE = (44, 32)  # pixels, width and height of a clump at most
CROWD_DIGIT_SIDES = (10, 14)
EMPTY_SHARE, CROWD_SHARE = 0.02, 0.03

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass
class Region:
    """A digit of a scene, or a clump of equal digits too small to be told apart."""

    digit: int
    mask: Mask  # (SIDE, SIDE)
    is_crowd: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The tight box around the mask as (x, y, width, height) in pixels."""
        (rows,), (columns,) = (np.nonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


@dataclass
class Scene:
    """A canvas (SIDE, SIDE, 3), red, green and blue in [0, 1], and what is drawn on it."""

    canvas: Array
    regions: list[Region] = field(default_factory=list)


def compose_scenes(split: str) -> Iterator[Scene]:
    """The scenes of "train" or "val", each from its own seed."""
    images, labels = _load_digits(split)
    for index in range(SCENES[split]):
        yield _compose_scene(Generator(PCG64([VERSION, *split.encode(), index])), images, labels)


def _load_digits(split: str) -> tuple[Array, NDArray[np.int64]]:
    """The split's digits as ink (n, 8, 8) in [0, 1] and their labels (n,)."""
    # Importing scikit-learn takes a second, and is needed only where the scenes are written.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = Generator(PCG64(VERSION)).permutation(len(labels))
    chosen = order[:TRAIN_DIGITS] if split == "train" else order[TRAIN_DIGITS:]
    return images[chosen].reshape(-1, 8, 8) / 16, labels[chosen]


def _compose_scene(rng: Generator, images: Array, labels: NDArray[np.int64]) -> Scene:
    brightness = rng.uniform(0.1, 0.5)
    scene = Scene(_draw_canvas(rng, brightness))
    if rng.random() < EMPTY_SHARE:
        return scene
    if rng.random() < CROWD_SHARE:
        _add_clump(rng, scene, brightness, images, labels)
    for _ in range(rng.integers(1, 5)):
        # A place may be hard to find in a full scene: a few tries, with another size each.
        for _ in range(20):
            pick = rng.integers(len(labels))
            ink = _enlarge(images[pick], int(rng.integers(*DIGIT_SIDES, endpoint=True)))
            alpha = _place(rng, ink, (0, 0, SIDE, SIDE))
            if _is_free(scene, alpha):
                _draw(rng, scene, brightness, Region(int(labels[pick]), alpha >= 0.5), alpha)
                break
    return scene


def _add_clump(
    rng: Generator, scene: Scene, brightness: float, images: Array, labels: NDArray[np.int64]
) -> None:
    digit = int(rng.integers(10))
    width, height = CROWD_SIZE
    left, top = int(rng.integers(SIDE - width)), int(rng.integers(SIDE - height))
    alpha = np.zeros((SIDE, SIDE))
    for pick in rng.choice(np.flatnonzero(labels == digit), 7, replace=False):
        ink = _enlarge(images[pick], int(rng.integers(*CROWD_DIGIT_SIDES, endpoint=True)))
        alpha = np.maximum(alpha, _place(rng, ink, (left, top, width, height)))
    _draw(rng, scene, brightness, Region(digit, alpha >= 0.5, is_crowd=True), alpha)


def _draw_canvas(rng: Generator, brightness: float) -> Array:
    """A tinted plane with a gradient, soft blotches and grain."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    plane = rng.uniform(0, 0.25) * (np.cos(angle) * x + np.sin(angle) * y)
    cells = int(rng.integers(3, 13))
    blotches = _resize(rng.uniform(-1, 1, (cells, cells)), (SIDE, SIDE)) * rng.uniform(0, 0.1)
    grain = rng.uniform(-1, 1, (SIDE, SIDE)) * rng.uniform(0, 0.08)
    tint = rng.uniform(-0.1, 0.1, 3)
    canvas: Array = np.clip(brightness + (plane + blotches + grain)[..., None] + tint, 0, 1)
    return canvas


def _enlarge(image: Array, side: int) -> Array:
    """Ink (h, w) in [0, 1] of an 8 x 8 digit, the longer of h and w being `side` pixels."""
    padded = np.pad(image, 1)
    fine = _trim(_resize(padded, (80, 80)))
    height, width = (max(1, round(extent * side / max(fine.shape))) for extent in fine.shape)
    return _trim(_resize(fine, (height, width)))


def _trim(values: Array) -> Array:
    """Coverage (h, w) in [0, 1] of the strokes within smooth `values`, cut to where it is 0.5."""
    coverage: Array = np.clip((values - 0.3) / 0.3, 0, 1)
    inside = coverage >= 0.5
    (rows,), (columns,) = (np.nonzero(inside.any(axis=axis)) for axis in (1, 0))
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _resize(values: Array, size: tuple[int, int]) -> Array:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC), np.float64)


def _place(rng: Generator, ink: Array, window: tuple[int, int, int, int]) -> Array:
    """The ink somewhere within the (x, y, width, height) `window` of an empty (SIDE, SIDE)."""
    x, y, width, height = window
    left = x + int(rng.integers(0, width - ink.shape[1], endpoint=True))
    top = y + int(rng.integers(0, height - ink.shape[0], endpoint=True))
    alpha = np.zeros((SIDE, SIDE))
    alpha[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return alpha


def _is_free(scene: Scene, alpha: Array) -> bool:
    left, top, width, height = Region(0, alpha > 0).box
    for region in scene.regions:
        x, y, w, h = region.box
        if left < x + w and x < left + width and top < y + h and y < top + height:
            return False
    return True


def _draw(rng: Generator, scene: Scene, brightness: float, region: Region, alpha: Array) -> None:
    """Draw strokes of one colour, clearly lighter than the canvas."""
    level = brightness + rng.uniform(0.3, 0.5)
    colour = np.clip(level + rng.uniform(-0.1, 0.1, 3), 0, 1)
    opacity = alpha[..., None]
    scene.canvas = scene.canvas * (1 - opacity) + colour * opacity
    scene.regions.append(region)
