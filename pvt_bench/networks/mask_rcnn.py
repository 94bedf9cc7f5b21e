"""Mask R-CNN (He et al., arXiv 1703.06870) on any pyramid, from torchvision's parts.

It follows the detector of the published tables, mmdetection's `mask_rcnn_r50_fpn`: P2 to P6, three
anchors a cell of eight strides, L1 loss on boxes, class-specific boxes and masks.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from pvt_bench.networks.anchors import RATIOS, Anchors
from pvt_bench.networks.batch import normalise_and_pad
from pvt_bench.networks.neck import WIDTH, FeaturePyramid

REPRESENTATION = 1024
SCALE = 8  # side of a square anchor in strides
# Regions an image that published costs are counted for: mmdetection's `forward_dummy`.
COUNTED_BOXES, COUNTED_MASKS = 1000, 100

Sizes = list[tuple[int, int]]
Targets = Sequence[dict[str, Tensor]]


class Pool(MultiScaleRoIAlign):
    """Pools each region from the map of P2 to P5 that suits its size (arXiv 1612.03144, eq. 1).

    The strides are the pyramid's own; torchvision would derive them from the first images.
    """

    def __init__(self, strides: Sequence[int], side: int) -> None:
        super().__init__([str(level) for level in range(len(strides))], side, sampling_ratio=0)
        self.scales = [1 / stride for stride in strides]
        finest, coarsest = (int(math.log2(stride)) for stride in (strides[0], strides[-1]))
        self.level_of = initLevelMapper(finest, coarsest)
        self.map_levels = self.level_of

    def forward(self, pyramid: Sequence[Tensor], boxes: list[Tensor], sizes: Sizes) -> Tensor:
        """Maps (B, 256, H_l, W_l) and boxes (n_i, 4), XYXY in pixels, to (n, 256, side, side)."""
        # Coordinates and maps must have one type, and coordinates do not fit into a half one.
        levels = {str(level): each.float() for level, each in enumerate(pyramid)}
        # Half a cell back: a cell's value is that at its centre, torchvision takes its corner.
        halves = boxes[0].new_tensor([0.5 / scale for scale in self.scales])
        shifts = halves[self.level_of(boxes)][:, None].split([len(each) for each in boxes])
        moved = [each - shift for each, shift in zip(boxes, shifts, strict=True)]
        return super().forward(levels, moved, sizes).to(pyramid[0].dtype)


class Proposals(RegionProposalNetwork):
    """Region proposal network: 256 anchors an image are sampled for its losses, half positive."""

    def __init__(self, strides: Sequence[int], before_nms: int, proposals: int) -> None:
        super().__init__(
            Anchors(strides, [SCALE]),
            RPNHead(WIDTH, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
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
        grid = [list(level.shape[-2:]) for level in pyramid]
        anchors = [torch.cat(self.anchor_generator(grid, logits[0]))] * len(sizes)
        logits, deltas = concat_box_prediction_layers(logits, deltas)
        # Coordinates of hundreds of pixels do not fit into the half precisions.
        logits, deltas = logits.float(), deltas.float()
        boxes = self.box_coder.decode(deltas.detach(), anchors).view(len(sizes), -1, 4)
        proposals, _ = self.filter_proposals(boxes, logits, sizes, counts)
        if targets is None:
            return proposals, {}
        labels, truth = self.assign_targets_to_anchors(anchors, list(targets))
        objectness, box = self.compute_loss(
            logits, deltas, labels, self.box_coder.encode(truth, anchors)
        )
        return proposals, {"objectness": objectness, "proposal": box}

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], targets: Any
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy and L1 loss over the sampled anchors of the batch."""
        positive, negative = (
            torch.where(torch.cat(sampled))[0] for sampled in self.fg_bg_sampler(labels)
        )
        sampled = torch.cat([positive, negative])
        wanted = torch.cat(labels)[sampled]
        loss = F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], wanted)
        truth = torch.cat(targets)[positive]
        box = F.l1_loss(pred_bbox_deltas[positive], truth, reduction="sum")
        return loss, box / max(1, len(sampled))


class Regions(RoIHeads):
    """Box and mask heads on regions of the pyramid.

    Labels count from 1 inside, as torchvision has the background at 0.
    """

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int],
        regions: int,
        score_threshold: float,
        nms_iou: float,
        detections: int,
    ) -> None:
        super().__init__(
            Pool(strides, 7),
            TwoMLPHead(WIDTH * 7**2, REPRESENTATION),
            FastRCNNPredictor(REPRESENTATION, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions,
            positive_fraction=0.25,
            bbox_reg_weights=None,  # torchvision's default is the published (10, 10, 5, 5)
            score_thresh=score_threshold,
            nms_thresh=nms_iou,
            detections_per_img=detections,
            mask_roi_pool=Pool(strides, 14),
            mask_head=MaskRCNNHeads(WIDTH, (WIDTH,) * 4, dilation=1),
            mask_predictor=MaskRCNNPredictor(WIDTH, WIDTH, num_classes + 1),
        )

    def boxes(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, K + 1) and deltas (n, 4 (K + 1)) from pooled maps (n, 256, 7, 7)."""
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return logits.float(), deltas.float()

    def masks(self, pooled: Tensor) -> Tensor:
        """Mask logits (n, K + 1, 28, 28) from pooled maps (n, 256, 14, 14)."""
        logits: Tensor = self.mask_predictor(self.mask_head(pooled))
        return logits.float()

    def losses(
        self, pyramid: list[Tensor], proposals: list[Tensor], sizes: Sizes, targets: Targets
    ) -> dict[str, Tensor]:
        """Losses over the regions that are sampled from proposals and true boxes."""
        targets = [{**target, "labels": target["labels"] + 1} for target in targets]
        proposals, matched, labels, deltas = self.select_training_samples(proposals, targets)
        logits, regression = self.boxes(self.box_roi_pool(pyramid, proposals, sizes))
        classes, truth = torch.cat(labels), torch.cat(deltas)
        positive = torch.where(classes > 0)[0]
        regression = regression.unflatten(1, (-1, 4))[positive, classes[positive]]
        box = F.l1_loss(regression, truth[positive], reduction="sum")
        kept = [each > 0 for each in labels]
        inside = [each[keep] for each, keep in zip(proposals, kept, strict=True)]
        mask = maskrcnn_loss(
            self.masks(self.mask_roi_pool(pyramid, inside, sizes)),
            # Half a pixel back, as in `Pool`: these boxes crop the true masks.
            [each - 0.5 for each in inside],
            [target["masks"] for target in targets],
            [target["labels"] for target in targets],
            [each[keep] for each, keep in zip(matched, kept, strict=True)],
        )
        count = max(1, len(classes))
        return {
            "classification": F.cross_entropy(logits, classes, reduction="sum") / count,
            "box": box / count,
            "mask": mask,
        }

    def detect(
        self, pyramid: list[Tensor], proposals: list[Tensor], sizes: Sizes
    ) -> list[dict[str, Tensor]]:
        """Detections of each image, best first, with a mask of probabilities in each box."""
        logits, deltas = self.boxes(self.box_roi_pool(pyramid, proposals, sizes))
        boxes, scores, labels = self.postprocess_detections(logits, deltas, proposals, sizes)
        masks = maskrcnn_inference(self.masks(self.mask_roi_pool(pyramid, boxes, sizes)), labels)
        return [
            {"boxes": box, "scores": score, "labels": label - 1, "masks": mask[:, 0]}
            for box, score, label, mask in zip(boxes, scores, labels, masks, strict=True)
        ]


class Head(nn.Module):
    """Region proposals, and what is found in them."""

    def __init__(self, proposals: Proposals, regions: Regions) -> None:
        super().__init__()
        self.proposals = proposals
        self.regions = regions

    def forward(self, pyramid: list[Tensor]) -> dict[str, Tensor]:
        """All anchors, and as many regions as published costs are counted for.

        pyramid: five maps (B, 256, H_l, W_l).
        Returns `objectness` and `proposals` flattened (B, -1), and `logits`, `deltas` of 1000 and
        `masks` of 100 regions an image, each of them the whole image.
        """
        objectness, proposals = self.proposals.head(pyramid)
        logits, deltas = self.regions.boxes(whole_images(pyramid[0], 7, COUNTED_BOXES))
        return {
            "objectness": torch.cat([level.flatten(1) for level in objectness], 1),
            "proposals": torch.cat([level.flatten(1) for level in proposals], 1),
            "logits": logits,
            "deltas": deltas,
            "masks": self.regions.masks(whole_images(pyramid[0], 14, COUNTED_MASKS)),
        }


class MaskRCNN(nn.Module):
    """Two-stage detector with masks.

    backbone: a pyramid of four maps with `.channels`, `.strides`, `.mean`, `.std`.
    num_classes: number of classes, without a background class.
    regions: sampled for the losses of each image, a quarter of them positive; small scenes need
        fewer, and the mask head is most of a step.
    candidates: of each level the best `candidates` are decoded, twice as many in training.
    proposals: kept of them an image.
    score_threshold, nms_iou, detections: the published inference settings.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        regions: int = 512,
        candidates: int = 1000,
        proposals: int = 1000,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        detections: int = 100,
    ) -> None:
        super().__init__()
        strides: Sequence[int] = backbone.strides  # type: ignore[assignment]
        self.backbone = backbone
        self.neck = FeaturePyramid(backbone.channels, LastLevelMaxPool())  # type: ignore[arg-type]
        self.head = Head(
            Proposals([*strides, strides[-1] * 2], candidates, proposals),
            Regions(num_classes, strides, regions, score_threshold, nms_iou, detections),
        )

    def outputs(self, images: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """The dense predictions, of a number of regions that does not depend on the images.

        It is what published GFLOPs count: see `Head.forward`.
        """
        return self.head(self._pyramid(images))

    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: Targets | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Detect, or measure the losses.

        images: tensors (3, H_i, W_i) with values in [0, 1].
        targets: per image `boxes` (n, 4), left, top, right, bottom in pixels, `labels` (n,) and
            `masks` (n, H_i, W_i).
        Returns losses `objectness`, `proposal`, `classification`, `box` and `mask` where targets
        are given; otherwise per image `boxes` (m, 4), `scores` (m,), `labels` (m,) and `masks`
        (m, 28, 28), probabilities inside the box, best first.
        """
        pyramid = self._pyramid(images)
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        proposals, losses = self.head.proposals(pyramid, sizes, targets)
        if targets is None:
            return self.head.regions.detect(pyramid[:-1], proposals, sizes)
        return losses | self.head.regions.losses(pyramid[:-1], proposals, sizes, targets)

    def _pyramid(self, images: Sequence[Tensor] | Tensor) -> list[Tensor]:
        mean, std = self.backbone.mean, self.backbone.std
        return self.neck(self.backbone(normalise_and_pad(images, mean, std)))  # type: ignore[arg-type]


def whole_images(level: Tensor, side: int, count: int) -> Tensor:
    """Each image of a map (B, C, H, W) as `count` regions (B count, C, side, side)."""
    return F.adaptive_avg_pool2d(level, side).repeat_interleave(count, dim=0)
