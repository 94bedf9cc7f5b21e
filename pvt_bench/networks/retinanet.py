"""RetinaNet (Lin et al., arXiv 1708.02002) on any pyramid, from torchvision's parts.

It follows the detector of the published tables, mmdetection 2's `retinanet_r50_fpn`: maps C3 to C5
enter the neck, P6 and P7 come from C5, nine anchors a cell, focal loss and L1 loss over the
positives of the whole batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import batched_nms, clip_boxes_to_image, sigmoid_focal_loss
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pvt_bench.networks.anchors import Anchors, Grid
from pvt_bench.networks.assigning import IGNORED, assign
from pvt_bench.networks.base import Network
from pvt_bench.networks.batch import Images, Sizes, Targets, sizes_of
from pvt_bench.networks.loss import divisor
from pvt_bench.networks.neck import WIDTH, FeaturePyramid

SCALES = tuple(2 ** (octave / 3) for octave in range(3))
# IoU from which on an anchor belongs to a box, below which it is background, and that the best
# anchor of a box needs.
POSITIVE, NEGATIVE, MINIMUM = 0.5, 0.4, 0.0


class CoarseMaps(LastLevelP6P7):
    """P6 from C5, and P7 from P6 as it is: torchvision puts a ReLU between, the release does not.

    torchvision also takes P5 where C5 happens to have 256 channels; the release takes C5 always.
    """

    def forward(
        self, p: list[Tensor], c: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        p6 = self.p6(c[-1])
        return [*p, p6, self.p7(p6)], [*names, "p6", "p7"]


class Neck(FeaturePyramid):
    """Feature pyramid of C3, C4, C5 with P6 and P7: five maps of 256 channels."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels, CoarseMaps(channels[-1], WIDTH))


class RetinaNet(Network):
    """One-stage detector.

    backbone: a pyramid of four maps.
    num_classes: number of classes, without a background class.
    score_threshold: lowest score of a detection.
    candidates: anchors per level with the highest scores, which are decoded.
    nms_iou: overlap (IoU) above which the weaker of two detections of a class is dropped.
    detections: most detections per image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        score_threshold: float = 0.05,
        candidates: int = 1000,
        nms_iou: float = 0.5,
        detections: int = 100,
    ) -> None:
        super().__init__(backbone)
        strides = self.backbone.strides[1:]
        self.neck = Neck(self.backbone.channels[1:])
        self._anchors = Anchors(
            [*strides, strides[-1] * 2, strides[-1] * 4], [4 * scale for scale in SCALES]
        )
        self.head = RetinaNetHead(WIDTH, len(self._anchors.sides), num_classes)
        self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.score_threshold = score_threshold
        self.candidates = candidates
        self.nms_iou = nms_iou
        self.detections = detections

    def outputs(self, images: Images) -> dict[str, Tensor]:
        """The dense predictions: `cls_logits` (B, A, K) and `bbox_regression` (B, A, 4)."""
        return self._outputs_and_grid(images)[0]

    def forward(
        self, images: Images, targets: Targets | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Detect, or measure the losses.

        targets: per image `boxes` (n, 4), left, top, right, bottom in pixels, and `labels` (n,).
        Returns losses `classification` and `box` where targets are given; otherwise per image
        `boxes` (m, 4), `scores` (m,) and `labels` (m,), best first.
        """
        outputs, grid = self._outputs_and_grid(images)
        sizes = sizes_of(images)
        if targets is not None:
            return self._losses(outputs, grid, sizes, targets)
        levels = self._anchors(grid, outputs["cls_logits"].device)
        return [
            self._detect(logits, deltas, levels, size)
            for logits, deltas, size in zip(
                outputs["cls_logits"], outputs["bbox_regression"], sizes, strict=True
            )
        ]

    def _outputs_and_grid(self, images: Images) -> tuple[dict[str, Tensor], Grid]:
        pyramid = self.neck(self.backbone(self.batch(images))[1:])
        return self.head(pyramid), [level.shape[-2:] for level in pyramid]

    def _losses(
        self, outputs: dict[str, Tensor], grid: Grid, sizes: Sizes, targets: Targets
    ) -> dict[str, Tensor]:
        """Focal loss and L1 loss, both over the positive anchors of the batch.

        As in the release an image counts at least one. The batch is that of all processes: see
        `pvt_bench.networks.loss.divisor`.
        """
        logits, deltas = outputs["cls_logits"].float(), outputs["bbox_regression"].float()
        anchors = torch.cat(self._anchors(grid, logits.device))
        classification, box = logits.new_zeros(()), logits.new_zeros(())
        positives = torch.zeros((), dtype=torch.int64, device=logits.device)
        for image_logits, image_deltas, size, target in zip(
            logits, deltas, sizes, targets, strict=True
        ):
            valid = self._anchors.valid(grid, size, logits.device)
            matches = assign(anchors, target["boxes"], POSITIVE, NEGATIVE, MINIMUM, valid)
            positive = matches >= 0
            wanted = torch.zeros_like(image_logits)
            wanted[positive, target["labels"][matches[positive]]] = 1.0
            counted = matches != IGNORED
            classification = classification + sigmoid_focal_loss(
                image_logits[counted], wanted[counted], reduction="sum"
            )
            truth = target["boxes"][matches[positive]]
            truth_deltas = self.box_coder.encode_single(truth, anchors[positive])
            box = box + F.l1_loss(image_deltas[positive], truth_deltas, reduction="sum")
            positives = positives + positive.sum().clamp(min=1)
        count = divisor(positives)
        return {"classification": classification / count, "box": box / count}

    def _detect(
        self, logits: Tensor, deltas: Tensor, levels: list[Tensor], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Decode one image: logits (A, K), deltas (A, 4), its height and width in pixels."""
        sizes = [len(level) for level in levels]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for level_logits, level_deltas, anchors in zip(
            logits.float().split(sizes), deltas.float().split(sizes), levels, strict=True
        ):
            scores = level_logits.sigmoid()
            # As the release of 2021: the best anchors by their best class, each with all its
            # classes. Newer releases take the best pairs of anchor and class.
            best = scores.max(dim=1).values.topk(min(self.candidates, len(scores))).indices
            boxes = self.box_coder.decode_single(level_deltas[best], anchors[best])
            scores = scores[best]
            anchor, label = torch.where(scores > self.score_threshold)
            found.append((clip_boxes_to_image(boxes, size)[anchor], scores[anchor, label], label))
        boxes, scores, labels = (torch.cat(part) for part in zip(*found, strict=True))
        kept = batched_nms(boxes, scores, labels, self.nms_iou)[: self.detections]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
