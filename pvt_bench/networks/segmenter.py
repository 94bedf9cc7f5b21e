"""What networks for semantic segmentation share: padding, the size of their logits, the loss."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pvt_bench.measure.segmentation import IGNORED
from pvt_bench.networks.base import Network
from pvt_bench.networks.batch import Images, Targets
from pvt_bench.networks.loss import divisor


class Segmenter(Network):
    """Base of the segmenters: a network gives `logits`, and has `backbone`, `neck` and `head`."""

    def logits(self, batch: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), sides multiples of 32, to (B, num_classes, H/4, W/4)."""
        raise NotImplementedError

    def outputs(self, images: Images) -> Tensor:
        """The dense predictions (B, num_classes, H/4, W/4), of the padded images."""
        return self.logits(self.batch(images))

    def forward(
        self, images: Images, targets: Targets | None = None
    ) -> list[Tensor] | dict[str, Tensor]:
        """Segment, or measure the loss.

        targets: per image `segments` (H_i, W_i) uint8, labels from 0, and 255 for ignored pixels.
        Returns the loss `cross_entropy` where targets are given, divided by the `counted_pixels` of
        all processes (see `pvt_bench.networks.loss.divisor`); otherwise the logits of each
        image (num_classes, H_i, W_i).
        """
        batch = self.batch(images)
        size = batch.shape[-2:]
        logits = F.interpolate(self.logits(batch), size=size, mode="bilinear", align_corners=False)
        if targets is not None:
            truth = pad_segments([target["segments"] for target in targets], logits)
            total = F.cross_entropy(logits, truth, ignore_index=IGNORED, reduction="sum")
            return {"cross_entropy": total / divisor(self.counted_pixels(truth))}
        return [
            of_image[:, : image.shape[-2], : image.shape[-1]]
            for of_image, image in zip(logits, images, strict=True)
        ]

    def counted_pixels(self, truth: Tensor) -> Tensor:
        """Number of pixels () that the loss is averaged over: those that are not ignored.

        truth: labels of the padded batch (B, H, W).
        """
        return (truth != IGNORED).sum()


def pad_segments(segments: Sequence[Tensor], logits: Tensor) -> Tensor:
    """Labels of a padded batch (B, H, W) int64; the padding is ignored.

    segments: of each image (H_i, W_i); logits: of the batch (B, num_classes, H, W).
    """
    shape = (len(logits), *logits.shape[-2:])
    truth = torch.full(shape, IGNORED, dtype=torch.int64, device=logits.device)
    for place, of_image in zip(truth, segments, strict=True):
        place[: of_image.shape[0], : of_image.shape[1]] = of_image
    return truth
