"""What all networks share: a backbone, and images of any size as its one normalised batch."""

from torch import Tensor, nn

from pvt_bench.backbones.protocol import as_backbone
from pvt_bench.networks.batch import Images, normalise_and_pad


class Network(nn.Module):
    """A network on a pyramid, or with `pyramid=False` on a classifier."""

    def __init__(self, backbone: nn.Module, pyramid: bool = True) -> None:
        super().__init__()
        self.backbone = as_backbone(backbone, pyramid)

    def batch(self, images: Images, multiple: int = 32) -> Tensor:
        """Images (3, H_i, W_i), in [0, 1], as the backbone takes them: see `normalise_and_pad`."""
        return normalise_and_pad(images, self.backbone.mean, self.backbone.std, multiple)
