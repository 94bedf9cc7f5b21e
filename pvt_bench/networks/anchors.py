"""Anchor boxes on a feature pyramid (Faster R-CNN, arXiv 1506.01497, section 3.1.1).

They are those of the released detectors, mmdetection 2: sides are not rounded to whole pixels, and
the centre of the first cell is the corner of the image.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pvt_bench.networks.batch import padded_size

RATIOS = (0.5, 1.0, 2.0)

Grid = Sequence[Sequence[int]]


class Anchors:
    """Anchors of all scales and ratios at each cell of each map.

    strides: pixels between the cells of each map.
    scales: sides of the square anchors, in strides.
    """

    def __init__(self, strides: Sequence[int], scales: Sequence[float]) -> None:
        self.strides = list(strides)
        # A ratio is height over width and keeps the area; all scales of a ratio come together.
        self.sides = [
            (scale / math.sqrt(ratio), scale * math.sqrt(ratio))
            for ratio in RATIOS
            for scale in scales
        ]

    def __call__(self, grid: Grid, device: torch.device) -> list[Tensor]:
        """Anchors of each map (A_l, 4), XYXY in pixels.

        grid: rows and columns of each map.
        """
        return [
            self._of_map(rows, columns, stride, device)
            for (rows, columns), stride in zip(grid, self.strides, strict=True)
        ]

    def valid(self, grid: Grid, size: tuple[int, int], device: torch.device) -> Tensor:
        """Whether each anchor of all maps (A,) is at a cell of an image's own.

        An image's own are the cells that it has when it is padded alone; the others come from
        larger images in its batch.

        grid: rows and columns of each map of the batch; size: height and width of the image.
        """
        height, width = padded_size(size)
        flags = []
        for (rows, columns), stride in zip(grid, self.strides, strict=True):
            inside_rows = torch.arange(rows, device=device) * stride < height
            inside_columns = torch.arange(columns, device=device) * stride < width
            cells = (inside_rows[:, None] & inside_columns).flatten()
            flags.append(cells.repeat_interleave(len(self.sides)))
        return torch.cat(flags)

    def _of_map(self, rows: int, columns: int, stride: int, device: torch.device) -> Tensor:
        sides = torch.tensor(self.sides, device=device) * stride
        around_zero = torch.cat([-sides, sides], dim=1) / 2
        y, x = torch.meshgrid(
            torch.arange(rows, device=device) * stride,
            torch.arange(columns, device=device) * stride,
            indexing="ij",
        )
        centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
        return (centres + around_zero).flatten(0, 1)
