"""Feature pyramid network (Lin et al., arXiv 1612.03144) over lists of maps."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

WIDTH = 256


class FeaturePyramid(FeaturePyramidNetwork):
    """Maps of any channels to maps of 256, finest first, with the coarser ones of `extra`.

    All its convolutions, those of `extra` too, start as in mmdetection and mmsegmentation: weights
    Xavier uniform, biases zero. torchvision's weights are scaled by a layer's inputs alone.
    """

    def __init__(self, channels: Sequence[int], extra: ExtraFPNBlock | None = None) -> None:
        super().__init__(list(channels), WIDTH, extra_blocks=extra)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        named = OrderedDict((str(level), feature) for level, feature in enumerate(features))
        return list(super().forward(named).values())
