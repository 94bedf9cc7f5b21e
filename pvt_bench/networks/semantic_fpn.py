"""Semantic FPN: the semantic branch of Panoptic FPN (arXiv 1901.02446, section 3), on any pyramid.

It follows the segmenter of the published tables (arXiv 2102.12122, section 5.3), which is that of
mmsegmentation: batch norms in the head instead of the paper's group norms, and as many
convolutions a level as it has doublings on its way to stride 4.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

from pvt_bench.networks.neck import WIDTH, FeaturePyramid
from pvt_bench.networks.segmenter import Segmenter

HEAD_WIDTH = 128


class Head(nn.Module):
    """Brings each level to stride 4 by convolutions and doublings, and classifies their sum.

    Weights start as in mmsegmentation: Kaiming normal by a layer's outputs, the classifier's normal
    with a deviation of 0.01.

    Args:
        levels: maps of the pyramid, each half as large as the one before.
        num_classes: number of classes.
        dropout: share of the sum's channels that are dropped in training.
    """

    def __init__(self, levels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(
                Conv2dNormActivation(HEAD_WIDTH if i else WIDTH, HEAD_WIDTH, 3)
                for i in range(max(1, level))
            )
            for level in range(levels)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(HEAD_WIDTH, num_classes, 1)
        for module in self.levels.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Maps (B, 256, H_i, W_i) to logits (B, num_classes, H_0, W_0)."""
        levels: Any = self.levels
        total = levels[0][0](pyramid[0])
        for level in range(1, len(pyramid)):
            maps = pyramid[level]
            for i, convolution in enumerate(levels[level], start=1):
                # To the size of the next finer map: twice its own, also where that was rounded.
                size = pyramid[level - i].shape[-2:]
                maps = F.interpolate(convolution(maps), size=size, mode="bilinear")
            total = total + maps
        return self.classifier(self.dropout(total))


class SemanticFPN(Segmenter):
    """Segmenter of convolutions on a feature pyramid.

    backbone: a pyramid of four maps.
    num_classes: number of classes.
    dropout: share of the channels before the classifier that are dropped in training.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, dropout: float = 0.1) -> None:
        super().__init__(backbone)
        self.neck = FeaturePyramid(self.backbone.channels)
        self.head = Head(len(self.backbone.channels), num_classes, dropout)

    def logits(self, batch: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), sides multiples of 32, to (B, num_classes, H/4, W/4)."""
        return self.head(self.neck(self.backbone(batch)))

    def counted_pixels(self, truth: Tensor) -> Tensor:
        """All pixels of the padded batch (), the ignored ones too.

        It is the plain mean that mmsegmentation 0.x takes, over a loss of zero at ignored pixels.
        """
        return torch.tensor(truth.numel(), device=truth.device)
