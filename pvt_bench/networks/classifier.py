"""Image classification: a backbone's own logits, and the losses of its published recipes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.networks.base import Network
from pvt_bench.networks.batch import Images, Targets


class Classifier(Network):
    """A classifier with the normalisation of its input.

    backbone: images (B, 3, H, W), normalised, to logits (B, num_classes).
    label_smoothing: share of each target that is spread evenly over all classes.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__(backbone, pyramid=False)
        self.label_smoothing = label_smoothing

    def outputs(self, images: Images) -> Tensor:
        """Images of one size to logits (B, num_classes)."""
        return self.backbone(self.batch(images, multiple=1))

    def forward(self, images: Images, targets: Targets | None = None) -> Tensor | dict[str, Tensor]:
        """Logits (B, num_classes); with targets the losses.

        targets: of each image, `label` () or, where images were mixed, `shares` (num_classes,).
        """
        logits = self.outputs(images)
        if targets is None:
            return logits
        wanted = torch.stack([t["shares"] if "shares" in t else t["label"] for t in targets])
        loss = F.cross_entropy(
            logits, wanted.to(logits.device), label_smoothing=self.label_smoothing
        )
        return {"cross_entropy": loss}
