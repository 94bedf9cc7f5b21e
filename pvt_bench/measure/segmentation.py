"""Scores of segmentations, from counts of pixels."""

import numpy as np
from numpy.typing import NDArray

from pvt_bench.measure.classification import confusion

# The label of pixels that neither train nor count.
IGNORED = 255


def count_pixels(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], num_classes: int
) -> NDArray[np.int64]:
    """Pixels (num_classes, num_classes) of the class of the row that were taken for the column's.

    truth, predicted: labels (H, W); what the truth ignores is left out.
    """
    counted = truth != IGNORED
    return confusion(
        truth[counted].astype(np.int64), predicted[counted].astype(np.int64), num_classes
    )


def by_class(matrix: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each class intersection over union, and the share of its pixels that were found.

    nan for a class that is in neither truth nor prediction, and in the second where it is not in
    the truth.
    """
    right, true = np.diag(matrix), matrix.sum(axis=1)
    return _divide(right, true + matrix.sum(axis=0) - right), _divide(right, true)


def segmentation_scores(matrix: NDArray[np.int64]) -> dict[str, float]:
    """`mIoU` and `mAcc`, means over the classes that have a value, and `aAcc`, over all pixels.

    Fractions; nan where no pixel counts.
    """
    iou, accuracy = by_class(matrix)
    overall = _divide(np.trace(matrix), matrix.sum())
    return {"mIoU": _mean(iou), "mAcc": _mean(accuracy), "aAcc": float(overall)}


def _divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
