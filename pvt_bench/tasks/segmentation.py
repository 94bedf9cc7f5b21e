"""Semantic segmentation, scored in the pixels of the files."""

import io
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.errors import InputError
from pvt_bench.escaping import to_csv
from pvt_bench.measure.segmentation import by_class, count_pixels, segmentation_scores
from pvt_bench.tasks.base import BuildOptimizer, Task, tell_unscored
from pvt_bench.tasks.charts import draw_confusion, draw_segmentations

# Sides of images at other scales are rounded up to it, as the test images of the protocol are.
ALIGNED = 32


class Segmentation(Task):
    """Trains a segmenter; a result is the PNG of an image's prediction, and its pixel counts.

    view: the validation images, with `class_names`; targets have `segments` (H, W), labels in the
        pixels of the file, 255 for ignored ones.
    scales: sizes, relative to the view's, at which each test image is shown; the probabilities of
        the classes are averaged over them.
    flip_test: whether each test image is also shown mirrored, at each scale.
    """

    def __init__(
        self,
        network: nn.Module,
        build_optimizer: BuildOptimizer | None,
        view: Any,
        schedule: Any = None,
        scales: Sequence[float] = (1.0,),
        flip_test: bool = False,
    ) -> None:
        super().__init__(network, build_optimizer, view, schedule)
        if not scales or min(scales) <= 0:
            raise InputError(
                f"task.module.scales={list(scales)} must be positive factors on the size of the "
                "test images, at least one. Use for example task.module.scales=[0.5,1.0,1.5]."
            )
        self.shown = list(product(scales, (False, True) if flip_test else (False,)))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Segment each image by itself: neither padding nor the batch changes what is predicted."""
        for image, target in zip(*batch, strict=True):
            height, width = (int(side) for side in target["size"])
            predicted = self.segment(image, (height, width)).to(torch.uint8).cpu().numpy()
            counts = count_pixels(
                target["segments"].cpu().numpy(), predicted, self.view.num_classes
            )
            cells = np.flatnonzero(counts)
            result = (encode(predicted), cells, counts.ravel()[cells])
            self.results.append((int(target["image_id"]), result))

    def segment(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """The label of each pixel (H, W), at `size`, of an image (3, h, w)."""
        if len(self.shown) == 1:
            return self._logits(image, size, *self.shown[0]).argmax(0)
        first, *others = self.shown
        total = self._logits(image, size, *first).softmax(0)
        for shown in others:
            total += self._logits(image, size, *shown).softmax(0)
        return total.argmax(0)

    def score(self, directory: Path) -> dict[str, float]:
        """mIoU, mean and overall accuracy; writes predictions, tables by class and pictures."""
        (directory / "predictions").mkdir(exist_ok=True)
        matrix = np.zeros((self.view.num_classes,) * 2, np.int64)
        for image_id, (png, cells, counts) in self.results:
            prediction_file(directory, image_id).write_bytes(png)
            matrix.ravel()[cells] += counts
        return write_scores(self.view, directory, matrix)

    def _logits(self, image: Tensor, size: tuple[int, int], scale: float, flipped: bool) -> Tensor:
        """Logits (num_classes, H, W) at `size` of the image, shown at a scale or mirrored."""
        if scale != 1.0:
            sides = [-int(-side * scale // ALIGNED) * ALIGNED for side in image.shape[-2:]]
            image = F.interpolate(image[None], size=sides, mode="bilinear", antialias=True)[0]
        logits = self.network([image.flip(-1) if flipped else image])[0].float()
        logits = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
        return logits.flip(-1) if flipped else logits


def prediction_file(directory: Path, image_id: int) -> Path:
    """Where the prediction for an image lies in a record's directory."""
    return directory / "predictions" / f"{image_id}.png"


def encode(labels: NDArray[np.uint8]) -> bytes:
    """Labels (H, W) as a PNG in ADE20K's values, which count from 1."""
    file = io.BytesIO()
    Image.fromarray(labels + np.uint8(1)).save(file, "PNG")
    return file.getvalue()


def decode(path: Path) -> NDArray[np.uint8]:
    """The labels (H, W) of a PNG in ADE20K's values."""
    try:
        with Image.open(path) as image:
            return np.asarray(image) - np.uint8(1)
    except OSError as error:
        raise InputError(
            f"The prediction {path} cannot be read ({error}). Expected one PNG for each "
            "validation image; score the network again with mode=test weights=PATH rerun=true."
        ) from error


def score_saved(view: Any, directory: Path) -> dict[str, float]:
    """Score the predictions that a run has left, without its network.

    Raises:
        InputError: the prediction for an image is missing, damaged, or of another size.
    """
    matrix = np.zeros((view.num_classes,) * 2, np.int64)
    for index in range(len(view)):
        target = view[index][1]
        path = prediction_file(directory, int(target["image_id"]))
        truth, predicted = target["segments"].numpy(), decode(path)
        if predicted.shape != truth.shape:
            raise InputError(
                f"The prediction {path} has {predicted.shape} pixels (height, width), its image "
                f"has {truth.shape}: they do not belong together. Was another dataset scored?"
            )
        matrix += count_pixels(truth, predicted, view.num_classes)
    return write_scores(view, directory, matrix)


def write_scores(view: Any, directory: Path, matrix: NDArray[np.int64]) -> dict[str, float]:
    """Write tables by class and pictures of counts (K, K); the metrics, `val/mIoU` first."""
    names = view.class_names
    iou, accuracy = by_class(matrix)
    tell_unscored("mIoU", names, np.isnan(iou).tolist())
    columns = {"class": names, "IoU": iou, "accuracy": accuracy, "pixels": matrix.sum(axis=1)}
    (directory / "per_class.csv").write_text(to_csv(pd.DataFrame(columns)))
    counts = pd.DataFrame(matrix, names, names)
    (directory / "confusion.csv").write_text(to_csv(counts, index=True))
    draw_confusion(directory / "pictures" / "confusion.png", names, matrix)
    draw_segmentations(
        directory / "pictures" / "predictions.png",
        view,
        lambda image_id: decode(prediction_file(directory, image_id)),
    )
    return {f"val/{name}": value for name, value in segmentation_scores(matrix).items()}
