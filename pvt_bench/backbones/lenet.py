"""LeNet-5: LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition,
Proceedings of the IEEE 86 (11), 1998; its sections are named below.
"""

from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.backbones.checks import check_counts

VARIANTS: dict[str, dict[str, Any]] = {"lenet5": {}}

# Pixels a side of the network's input.
SIDE = 32
# Table I: the maps of S2 that each of the 16 maps of C3 reads.
TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip


def squash(sums: Tensor) -> Tensor:
    """A tanh(S a) with A = 1.7159 and S = 2/3, so that 1 and -1 stay (appendix A)."""
    return 1.7159 * torch.tanh(sums * (2 / 3))


class Subsampling(nn.Module):
    """Sums of 2 x 2 pixels, times one coefficient a map, plus one bias a map (section II.B)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H / 2, W / 2)."""
        sums = F.avg_pool2d(maps, 2, divisor_override=1)
        return sums * self.weight[:, None, None] + self.bias[:, None, None]


class TableConvolution(nn.Module):
    """C3, 5 x 5 convolutions of which each reads its own selection of maps (Table I).

    Maps that read equally many are one grouped convolution, so that neither parameters nor
    operations are spent on what is not connected.
    """

    sources: Tensor

    def __init__(self) -> None:
        super().__init__()
        counts = [(width, len(list(rows))) for width, rows in groupby(TABLE, key=len)]
        self.widths = [width * count for width, count in counts]
        self.parts = nn.ModuleList(
            nn.Conv2d(width * count, count, 5, groups=count) for width, count in counts
        )
        self.register_buffer("sources", torch.tensor([*chain(*TABLE)]), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, 6, H, W) to (B, 16, H - 4, W - 4)."""
        inputs = maps.index_select(1, self.sources).split(self.widths, dim=1)
        return torch.cat([part(each) for part, each in zip(self.parts, inputs, strict=True)], dim=1)


class LeNet5(nn.Module):
    """LeNet-5 with its partial connections and trained subsampling; a classifier.

    Two things differ from the paper. The output layer is linear, in place of Gaussian units on
    fixed bitmaps of ASCII characters: it serves any classes and the cross entropy. And any image
    is taken: its channels are averaged and the grey image is resized to 32 x 32, where the paper
    sets a digit of at most 20 x 20 pixels into an empty margin.

    `mean` and `std` bring black to -0.1 and white to 1.175, the paper's background and foreground.

    Raises:
        InputError: a number of classes that defines no network.
    """

    mean = (0.1 / 1.275,) * 3
    std = (1 / 1.275,) * 3

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__()
        check_counts(num_classes=(num_classes, 10))
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = TableConvolution()
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.head = nn.Linear(84, num_classes)
        self.initialise()

    def initialise(self) -> None:
        """Draw weights uniformly within 2.4 over the inputs of their unit (appendix A)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | Subsampling):
                inputs = 4 if isinstance(module, Subsampling) else module.weight[0].numel()
                for parameter in module.parameters():
                    nn.init.uniform_(parameter, -2.4 / inputs, 2.4 / inputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) of any size to logits (B, num_classes)."""
        maps = images.mean(1, keepdim=True)
        if maps.shape[2:] != (SIDE, SIDE):
            maps = F.interpolate(maps, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        for layer in (self.c1, self.s2, self.c3, self.s4, self.c5):
            maps = squash(layer(maps))
        return self.head(squash(self.f6(maps.flatten(1))))
