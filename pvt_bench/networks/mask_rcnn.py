"""Mask R-CNN (He et al., arXiv 1703.06870) on any pyramid, from torchvision's parts.

It follows the detector of the published tables, mmdetection's `mask_rcnn_r50_fpn`: P2 to P6, three
anchors a cell of eight strides, L1 loss on boxes, class-specific boxes and masks.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from pvt_bench.networks.assigning import assign
from pvt_bench.networks.base import Network
from pvt_bench.networks.batch import Images, Sizes, Targets, sizes_of
from pvt_bench.networks.loss import divisor
from pvt_bench.networks.neck import WIDTH, FeaturePyramid
from pvt_bench.networks.proposals import Proposals

REPRESENTATION = 1024
# IoU from which on a region is positive, and that the best region of a box needs; below it is
# background.
POSITIVE = 0.5
# Regions an image that published costs are counted for: mmdetection's `forward_dummy`.
COUNTED_BOXES, COUNTED_MASKS = 1000, 100


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
            fg_iou_thresh=POSITIVE,
            bg_iou_thresh=POSITIVE,
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
        self._initialise()

    def _initialise(self) -> None:
        """Draw the weights that torchvision draws in another way than mmdetection."""
        for layer in (self.box_head.fc6, self.box_head.fc7):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        predictor = self.box_predictor
        for layer, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)
        for layer in (self.mask_predictor.conv5_mask, self.mask_predictor.mask_fcn_logits):
            nn.init.zeros_(layer.bias)

    def boxes(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, K + 1) and deltas (n, 4 (K + 1)) from pooled maps (n, 256, 7, 7)."""
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return logits.float(), deltas.float()

    def masks(self, pooled: Tensor) -> Tensor:
        """Mask logits (n, K + 1, 28, 28) from pooled maps (n, 256, 14, 14)."""
        logits: Tensor = self.mask_predictor(self.mask_head(pooled))
        return logits.float()

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The box of each region, 0 where it has none, and its label, 0 for the background.

        proposals: the regions of each image; torchvision appends the true boxes to them. As in the
        release each of these is its own region, and only the others are matched.
        """
        matched, labels = [], []
        for regions, boxes, classes in zip(proposals, gt_boxes, gt_labels, strict=True):
            proposed = regions[: len(regions) - len(boxes)]
            matches = assign(proposed, boxes, POSITIVE, POSITIVE, POSITIVE)
            matches = torch.cat([matches, torch.arange(len(boxes), device=boxes.device)])
            matched.append(matches.clamp(min=0))
            labels.append(F.pad(classes, (1, 0))[matches + 1])
        return matched, labels

    def losses(
        self, pyramid: list[Tensor], proposals: list[Tensor], sizes: Sizes, targets: Targets
    ) -> dict[str, Tensor]:
        """Losses over the regions that are sampled from proposals and true boxes.

        All are divided by the regions of the whole batch, the mask's by the positive ones: see
        `pvt_bench.networks.loss.divisor`.
        """
        targets = [{**target, "labels": target["labels"] + 1} for target in targets]
        proposals, matched, labels, deltas = self.select_training_samples(proposals, targets)
        logits, regression = self.boxes(self.box_roi_pool(pyramid, proposals, sizes))
        classes, truth = torch.cat(labels), torch.cat(deltas)
        positive = torch.where(classes > 0)[0]
        regression = regression.unflatten(1, (-1, 4))[positive, classes[positive]]
        box = F.l1_loss(regression, truth[positive], reduction="sum")
        kept = [each > 0 for each in labels]
        inside = [each[keep] for each, keep in zip(proposals, kept, strict=True)]
        of_class = self.masks(self.mask_roi_pool(pyramid, inside, sizes))
        masks = of_class[torch.arange(len(positive), device=classes.device), classes[positive]]
        true_masks = [
            crop_masks(target["masks"], boxes, match[keep], masks.shape[-1])
            for target, boxes, match, keep in zip(targets, inside, matched, kept, strict=True)
        ]
        mask = F.binary_cross_entropy_with_logits(masks, torch.cat(true_masks), reduction="sum")
        count = divisor(torch.tensor(len(classes), device=classes.device))
        positives = divisor(torch.tensor(len(positive), device=classes.device))
        return {
            "classification": F.cross_entropy(logits, classes, reduction="sum") / count,
            "box": box / count,
            "mask": mask / masks.shape[-1] ** 2 / positives,
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


class MaskRCNN(Network):
    """Two-stage detector with masks.

    backbone: a pyramid of four maps.
    num_classes: number of classes, without a background class.
    regions: regions per image that the losses are computed on, a quarter of them positive; small
        scenes need fewer, and the mask head is most of a step.
    candidates: anchors per level with the highest scores, which are decoded; twice as many in
        training.
    proposals: most proposals per image that reach the second stage.
    score_threshold: lowest score of a detection.
    nms_iou: overlap (IoU) above which the weaker of two detections of a class is dropped.
    detections: most detections per image.
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
        super().__init__(backbone)
        strides = self.backbone.strides
        self.neck = FeaturePyramid(self.backbone.channels, LastLevelMaxPool())
        self.head = Head(
            Proposals([*strides, strides[-1] * 2], candidates, proposals),
            Regions(num_classes, strides, regions, score_threshold, nms_iou, detections),
        )

    def outputs(self, images: Images) -> dict[str, Tensor]:
        """The dense predictions, of a number of regions that does not depend on the images.

        It is what published GFLOPs count: see `Head.forward`.
        """
        return self.head(self.neck(self.backbone(self.batch(images))))

    def forward(
        self, images: Images, targets: Targets | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Detect, or measure the losses.

        targets: per image `boxes` (n, 4), left, top, right, bottom in pixels, `labels` (n,) and
            `masks` (n, H_i, W_i).
        Returns losses `objectness`, `proposal`, `classification`, `box` and `mask` where targets
        are given; otherwise per image `boxes` (m, 4), `scores` (m,), `labels` (m,) and `masks`
        (m, 28, 28), probabilities inside the box, best first.
        """
        pyramid = self.neck(self.backbone(self.batch(images)))
        sizes = sizes_of(images)
        proposals, losses = self.head.proposals(pyramid, sizes, targets)
        if targets is None:
            return self.head.regions.detect(pyramid[:-1], proposals, sizes)
        return losses | self.head.regions.losses(pyramid[:-1], proposals, sizes, targets)


def whole_images(level: Tensor, side: int, count: int) -> Tensor:
    """Each image of a map (B, C, H, W) as `count` regions (B count, C, side, side)."""
    return F.adaptive_avg_pool2d(level, side).repeat_interleave(count, dim=0)


def crop_masks(masks: Tensor, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
    """The part of a mask in each box (k, side, side), 1 where at least half of a cell is covered.

    masks: of an image (n, H, W); boxes (k, 4), XYXY in pixels; matched: the mask of each box (k,).
    """
    regions = torch.cat([matched[:, None].to(boxes), boxes], dim=1)
    parts = roi_align(masks[:, None].to(boxes), regions, side, aligned=True)[:, 0]
    return (parts >= 0.5).to(boxes)
