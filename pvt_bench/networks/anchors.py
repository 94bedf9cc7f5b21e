"""Anchor boxes on a feature pyramid (Faster R-CNN, arXiv 1506.01497, section 3.1.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

RATIOS = (0.5, 1.0, 2.0)


class Anchors(AnchorGenerator):
    """Anchors of all scales and ratios at each cell of each map.

    The strides are the pyramid's own. torchvision would derive them from the size of each grid,
    which rounds: 61 x 64 instead of 64 for P6 of an image of 800 x 1344.

    strides: pixels between the cells of each map.
    scales: sides of the square anchors, in strides.
    """

    def __init__(self, strides: Sequence[int], scales: Sequence[float]) -> None:
        super().__init__(
            sizes=tuple(tuple(stride * scale for scale in scales) for stride in strides),
            aspect_ratios=(RATIOS,) * len(strides),
        )
        self.strides = list(strides)

    def forward(self, grid: list[list[int]], like: Tensor) -> list[Tensor]:
        """Anchors of each map (A_l, 4), XYXY in pixels, on the device of `like`.

        grid: rows and columns of each map.
        """
        strides = [[torch.tensor(s, device=like.device)] * 2 for s in self.strides]
        self.set_cell_anchors(torch.float32, like.device)
        return self.grid_anchors(grid, strides)
