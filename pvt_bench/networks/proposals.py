"""Region proposal network (Faster R-CNN, arXiv 1506.01497, section 3.1), from torchvision's parts.

It follows mmdetection 2's `RPNHead`, with the settings of `mask_rcnn_r50_fpn`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)

from pvt_bench.networks.anchors import Anchors, Grid
from pvt_bench.networks.assigning import IGNORED, assign
from pvt_bench.networks.batch import Sizes, Targets
from pvt_bench.networks.loss import divisor
from pvt_bench.networks.neck import WIDTH

SCALE = 8  # side of a square anchor in strides
# IoU from which on an anchor is positive, below which it is negative, and that the best anchor of
# a box needs.
POSITIVE, NEGATIVE, MINIMUM = 0.7, 0.3, 0.3


class Proposals(RegionProposalNetwork):
    """Region proposal network: 256 anchors an image are sampled for its losses, half positive."""

    def __init__(self, strides: Sequence[int], before_nms: int, proposals: int) -> None:
        anchors = Anchors(strides, [SCALE])
        super().__init__(
            anchors,
            RPNHead(WIDTH, len(anchors.sides)),
            fg_iou_thresh=POSITIVE,
            bg_iou_thresh=NEGATIVE,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2 * before_nms, "testing": before_nms},
            post_nms_top_n={"training": proposals, "testing": proposals},
            nms_thresh=0.7,
        )

    def forward(
        self, pyramid: list[Tensor], sizes: Sizes, targets: Targets | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals (n, 4) an image, XYXY in pixels, and with targets the losses."""
        logits, deltas = self.head(pyramid)
        counts = [level[0].numel() for level in logits]
        grid = [level.shape[-2:] for level in pyramid]
        anchors = torch.cat(self.anchor_generator(grid, pyramid[0].device))
        logits, deltas = concat_box_prediction_layers(logits, deltas)
        # Coordinates of hundreds of pixels do not fit into the half precisions.
        logits, deltas = logits.float(), deltas.float()
        boxes = self.box_coder.decode(deltas.detach(), [anchors] * len(sizes))
        boxes = boxes.view(len(sizes), -1, 4)
        proposals, _ = self.filter_proposals(boxes, logits, sizes, counts)
        if targets is None:
            return proposals, {}
        matches = self._match(anchors, grid, sizes, targets)
        return proposals, self._losses(logits.flatten(), deltas, anchors, matches, targets)

    def _match(self, anchors: Tensor, grid: Grid, sizes: Sizes, targets: Targets) -> list[Tensor]:
        """For each image the box of each anchor, or what `assign` gives instead (A,)."""
        return [
            assign(
                anchors,
                target["boxes"],
                POSITIVE,
                NEGATIVE,
                MINIMUM,
                self.anchor_generator.valid(grid, size, anchors.device),
            )
            for size, target in zip(sizes, targets, strict=True)
        ]

    def _losses(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        matches: list[Tensor],
        targets: Targets,
    ) -> dict[str, Tensor]:
        """Cross entropy and L1 loss, both over the sampled anchors of the batch.

        As in the release an image counts at least one positive and one negative anchor. The batch
        is that of all processes: see `pvt_bench.networks.loss.divisor`.

        logits (B A,), deltas (B A, 4): of all anchors of the batch, image by image.
        """
        labels = [(match >= 0).float() - (match == IGNORED).float() for match in matches]
        sampled = self.fg_bg_sampler(labels)
        positives, negatives = ([mask.bool() for mask in masks] for masks in sampled)
        counts = [mask.sum().clamp(min=1) for mask in (*positives, *negatives)]
        count = divisor(torch.stack(counts).sum())

        positive = torch.cat(positives)
        either = positive | torch.cat(negatives)
        objectness = F.binary_cross_entropy_with_logits(
            logits[either], torch.cat(labels)[either], reduction="sum"
        )
        boxes = [
            target["boxes"][match[mask]]
            for target, match, mask in zip(targets, matches, positives, strict=True)
        ]
        own = torch.cat([anchors[mask] for mask in positives])
        truth = self.box_coder.encode_single(torch.cat(boxes), own)
        box = F.l1_loss(deltas[positive], truth, reduction="sum")
        return {"objectness": objectness / count, "proposal": box / count}
