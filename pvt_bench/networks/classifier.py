"""Image classification: a backbone's own logits, and the losses of its published recipes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.networks.batch import normalise_and_pad


class Classifier(nn.Module):
    """A classifier with the normalisation of its input.

    backbone: images (B, 3, H, W), normalised, to logits (B, num_classes), with `.mean`, `.std`.
    num_classes: number of classes.
    label_smoothing: share of each target that is spread evenly over all classes.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing

    def outputs(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        """Images of one size (3, H, W), in [0, 1], to logits (B, num_classes)."""
        mean, std = self.backbone.mean, self.backbone.std
        return self.backbone(normalise_and_pad(images, mean, std, multiple=1))  # type: ignore[arg-type]

    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[dict[str, Tensor]] | None = None
    ) -> Tensor | dict[str, Tensor]:
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
