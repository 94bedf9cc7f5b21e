"""Scores of classifiers, from counts."""

import numpy as np
from numpy.typing import NDArray


def accuracies(ranks: NDArray[np.int64]) -> dict[str, float]:
    """Fractions of images whose label is the best guess, and among the best five.

    ranks: for each image the number of classes with a higher logit than its label's (n,).
    """
    return {"top1": float(np.mean(ranks < 1)), "top5": float(np.mean(ranks < 5))}


def confusion(
    labels: NDArray[np.int64], guesses: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Counts (num_classes, num_classes): images of the class of the row taken for the column's."""
    cells = labels * num_classes + guesses
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
