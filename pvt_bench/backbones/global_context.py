"""ResNet-50 with global-context blocks: GCNet, arXiv 1904.11492; built and registered with timm."""

from typing import Any

import timm
from timm.layers import GlobalContext
from torch import nn

# Width inside a block over its channels: r4 of PVT, arXiv 2102.12122, table 10.
RATIO = 1 / 4


@timm.models.register_model
def resnet50_gc(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 whose residuals in stages c3 to c5 end with a block of added global context.

    The blocks start as the identity, as in the released code, so that a ResNet-50's weights keep
    their meaning.
    """
    network: Any = timm.create_model("resnet50", pretrained=pretrained, **options)
    for stage in (network.layer2, network.layer3, network.layer4):
        for block in stage:
            block.se = GlobalContext(
                block.bn3.num_features, fuse_add=True, fuse_scale=False, rd_ratio=RATIO
            )
            nn.init.zeros_(block.se.mlp_add.fc2.bias)
    return network
