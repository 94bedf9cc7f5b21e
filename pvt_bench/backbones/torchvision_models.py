"""torchvision's side: the networks that timm has not got."""

from typing import Any

import torchvision
from torch import Tensor, nn

from pvt_bench.backbones.checks import explain_sizes
from pvt_bench.backbones.freezing import Freezable, Part, divide

# The modules of GoogLeNet (arXiv 1409.4842, table 1) at whose ends the strides 4 to 32 are full.
GOOGLENET_ENDS = ("conv3", "inception3b", "inception4e", "inception5b")
GOOGLENET_OPTIONS = ("dropout",)
# As the published weights want it: torchvision's own transform of the input comes to the same.
HALF = (0.5, 0.5, 0.5)


class GoogLeNetPyramid(Freezable):
    """The maps of torchvision's GoogLeNet at strides 4, 8, 16 and 32."""

    mean = std = HALF

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.body = build_googlenet(**options)
        for name in ("aux1", "aux2", "avgpool", "dropout", "fc"):
            delattr(self.body, name)
        self.strides = [4, 8, 16, 32]
        self.channels = [192, 480, 832, 1024]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to four maps (B, C_i, H_i, W_i)."""
        maps = []
        for name, module in self.body.named_children():
            images = module(images)
            if name in GOOGLENET_ENDS:
                maps.append(images)
        return maps

    def stage_modules(self) -> list[list[Part]]:
        """The body's modules up to each of the four maps."""
        return divide(self.body, GOOGLENET_ENDS)


def build_googlenet(**options: Any) -> Any:
    """torchvision's GoogLeNet without its auxiliary classifiers."""
    return torchvision.models.googlenet(aux_logits=False, init_weights=True, **options)


def create_googlenet(num_classes: int, features: bool, **options: Any) -> nn.Module:
    """Build GoogLeNet as a classifier or a pyramid, see `pvt_bench.backbones.create`.

    Args:
        dropout: dropout in front of the classifier.
    """
    network: Any
    if features:
        network = GoogLeNetPyramid(**options)
    else:
        network = build_googlenet(num_classes=num_classes, **options)
        network.mean = network.std = HALF
    explain_sizes(network, "googlenet")
    return network
