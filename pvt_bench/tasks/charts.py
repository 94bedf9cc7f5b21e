"""Charts of how a network errs."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pvt_bench.escaping import one_line

# More class names than this cannot be read beside a matrix.
NAMED = 40


@rc_context({"text.parse_math": False})  # A dollar sign in a name begins no formula.
def draw_confusion(path: Path, names: list[str], matrix: NDArray[np.int64]) -> None:
    """Counts (n, n) as shares of their row: light where little, dark where much.

    The classes of the truth are the rows, those of the prediction the columns.
    """
    names = [one_line(name) for name in names]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 4.5 + 0.22 * min(len(names), NAMED)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="cividis_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= NAMED:
        places = range(len(names))
        axes.set_xticks(places, names, rotation=90)
        axes.set_yticks(places, names)
    figure.colorbar(image, shrink=0.8, label="share of the true class")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
