"""Mixed Link Networks (MixNet of IJCAI 2018): arXiv 1802.01808, whose sections are named below.

Not the MixNet of arXiv 1907.09595 (mixed depthwise kernels), which timm has under that name.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.backbones.checks import check_counts, four
from pvt_bench.backbones.freezing import Freezable
from pvt_bench.errors import InputError

# Layers of the four blocks and growth k1 = k2 of the ImageNet networks, as in the released code
# (github.com/DeepInsight-PCALab/MixNet).
VARIANTS: dict[str, dict[str, Any]] = {
    "mixed_link_105": {"depths": (6, 12, 20, 12), "growth": 32},
    "mixed_link_121": {"depths": (6, 12, 24, 16), "growth": 40},
    "mixed_link_141": {"depths": (6, 12, 30, 20), "growth": 48},
}

# Channels between the two convolutions of a link, over its growth.
EXPANSION = 4
# Pixels a side from which the last block has a map: a quarter, rounded up, then three halvings.
LEAST = 29


def link(in_channels: int, growth: int) -> nn.Sequential:
    """Maps (B, in_channels, H, W) to (B, growth, H, W): a bottleneck with norms in front."""
    hidden = EXPANSION * growth
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, hidden, kernel_size=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, growth, kernel_size=3, padding=1, bias=False),
    )


class MixedLinkLayer(nn.Module):
    """Adds an inner link to the newest `growth` channels and appends an outer link (section 4).

    Both links read one tensor, so a layer copies the maps once, when it appends.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.split = [in_channels - growth, growth]
        self.inner = link(in_channels, growth)
        self.outer = link(in_channels, growth)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C + growth, H, W)."""
        old, newest = maps.split(self.split, dim=1)
        return torch.cat([old, newest + self.inner(maps), self.outer(maps)], dim=1)


def stem(channels: int) -> nn.Sequential:
    """Images to maps at stride 4."""
    return nn.Sequential(
        nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )


def transition(in_channels: int, channels: int) -> nn.Sequential:
    """Fewer channels at half the height and width."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, channels, kernel_size=1, bias=False),
        nn.AvgPool2d(kernel_size=2),
    )


class MixedLinkNetwork(Freezable):
    """A Mixed Link Network as a classifier, or with `features` as a pyramid of four maps.

    The maps are the ends of the four blocks, in front of the transitions. With `features` there
    is no final norm or head, so that every parameter takes part. The stem has 2 * growth channels,
    and each transition halves them.

    Args:
        depths: layers of each of the four blocks.
        growth: channels that a layer adds to, and as many that it appends (k1 and k2 of section 4).

    Raises:
        InputError: a value that defines no network; before anything is allocated.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        growth: int,
        num_classes: int = 1000,
        features: bool = False,
    ) -> None:
        super().__init__()
        depths = four("depths", depths, "[6,12,20,12]")
        check_counts(growth=(growth, 32), num_classes=(num_classes, 1000))
        self.features = features
        self.strides = [4, 8, 16, 32]
        self.channels: list[int] = []
        self.stages = nn.ModuleList()
        width = 2 * growth
        for depth in depths:
            if self.channels:
                width = self.channels[-1] // 2
                entry = transition(self.channels[-1], width)
            else:
                entry = stem(width)
            layers = [MixedLinkLayer(width + i * growth, growth) for i in range(depth)]
            self.stages.append(nn.Sequential(entry, *layers))
            self.channels.append(width + depth * growth)
        if not features:
            self.norm = nn.BatchNorm2d(self.channels[-1])
            self.head = nn.Linear(self.channels[-1], num_classes)
        self.initialise()

    def initialise(self) -> None:
        """Draw weights as the released code does; the head's keep torch's own start."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Images (B, 3, H, W) to logits (B, num_classes), or to maps (B, C_i, H_i, W_i).

        Raises:
            InputError: an image of fewer than 29 pixels a side.
        """
        height, width = images.shape[-2:]
        if min(height, width) < LEAST:
            raise InputError(
                f"An image of {height} x {width} pixels is too small for a Mixed Link Network: "
                f"its last block needs at least {LEAST} pixels a side."
            )
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        if self.features:
            return maps[1:]
        return self.head(F.relu(self.norm(maps[-1])).mean((2, 3)))

    def stage_modules(self) -> list[list[nn.Module]]:
        """The four stages, each a block with the stem or the transition in front of it."""
        return [[stage] for stage in self.stages]
