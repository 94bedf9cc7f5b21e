"""RetinaNet (Lin et al., arXiv 1708.02002) on any pyramid, from torchvision's parts.

It follows the detector of the published tables: maps C3 to C5 enter the neck, P6 and P7 come
from C5, nine anchors a cell, focal loss and L1 loss over the positives of the whole batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import (
    batched_nms,
    box_iou,
    clip_boxes_to_image,
    sigmoid_focal_loss,
)
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pvt_bench.networks.anchors import RATIOS, Anchors
from pvt_bench.networks.batch import normalise_and_pad
from pvt_bench.networks.neck import WIDTH, FeaturePyramid
from pvt_bench.training.processes import divisor

SCALES = tuple(2 ** (octave / 3) for octave in range(3))


class Neck(FeaturePyramid):
    """Feature pyramid of C3, C4, C5 with P6 and P7: five maps of 256 channels."""

    def __init__(self, channels: Sequence[int]) -> None:
        extra = LastLevelP6P7(channels[-1], WIDTH)
        # torchvision takes P5 where C5 happens to have 256 channels; the papers take C5 always.
        extra.use_P5 = False
        super().__init__(channels, extra)


class RetinaNet(nn.Module):
    """One-stage detector.

    backbone: a pyramid of four maps with `.channels`, `.strides`, `.mean`, `.std`.
    num_classes: number of classes, without a background class.
    score_threshold, candidates, nms_iou, detections: the published inference settings; of each
        level the best `candidates` are decoded, and `detections` are kept an image.
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
        super().__init__()
        strides: Sequence[int] = backbone.strides[1:]  # type: ignore[assignment,index]
        self.strides = [*strides, strides[-1] * 2, strides[-1] * 4]
        self.backbone = backbone
        self.neck = Neck(backbone.channels[1:])  # type: ignore[arg-type,index]
        self._anchors = Anchors(self.strides, [4 * scale for scale in SCALES])
        self.head = RetinaNetHead(WIDTH, len(SCALES) * len(RATIOS), num_classes)
        self.matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
        self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.score_threshold = score_threshold
        self.candidates = candidates
        self.nms_iou = nms_iou
        self.detections = detections

    def outputs(self, images: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """The dense predictions: `cls_logits` (B, A, K) and `bbox_regression` (B, A, 4)."""
        return self._outputs_and_grid(images)[0]

    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Detect, or measure the losses.

        images: tensors (3, H_i, W_i) with values in [0, 1].
        targets: per image `boxes` (n, 4), left, top, right, bottom in pixels, and `labels` (n,).
        Returns losses `classification` and `box` where targets are given; otherwise per image
        `boxes` (m, 4), `scores` (m,) and `labels` (m,), best first.
        """
        outputs, grid = self._outputs_and_grid(images)
        levels = self._anchors(grid, outputs["cls_logits"])
        if targets is not None:
            return self._losses(outputs, torch.cat(levels), targets)
        return [
            self._detect(logits, deltas, levels, (image.shape[-2], image.shape[-1]))
            for logits, deltas, image in zip(
                outputs["cls_logits"], outputs["bbox_regression"], images, strict=True
            )
        ]

    def _outputs_and_grid(
        self, images: Sequence[Tensor] | Tensor
    ) -> tuple[dict[str, Tensor], list[list[int]]]:
        mean, std = self.backbone.mean, self.backbone.std
        batch = normalise_and_pad(images, mean, std)  # type: ignore[arg-type]
        pyramid = self.neck(self.backbone(batch)[1:])
        return self.head(pyramid), [list(level.shape[-2:]) for level in pyramid]

    def _losses(
        self, outputs: dict[str, Tensor], anchors: Tensor, targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Focal loss and L1 loss, both over the number of positive anchors in the batch.

        That is the batch of all processes: see `pvt_bench.training.processes.divisor`.
        """
        logits, deltas = outputs["cls_logits"].float(), outputs["bbox_regression"].float()
        classification, box = logits.new_zeros(()), logits.new_zeros(())
        positives = torch.zeros((), dtype=torch.int64, device=logits.device)
        for image_logits, image_deltas, target in zip(logits, deltas, targets, strict=True):
            matches = self._match(anchors, target["boxes"])
            positive = matches >= 0
            wanted = torch.zeros_like(image_logits)
            wanted[positive, target["labels"][matches[positive]]] = 1.0
            counted = matches != Matcher.BETWEEN_THRESHOLDS
            classification = classification + sigmoid_focal_loss(
                image_logits[counted], wanted[counted], reduction="sum"
            )
            truth = target["boxes"][matches[positive]]
            truth_deltas = self.box_coder.encode_single(truth, anchors[positive])
            box = box + F.l1_loss(image_deltas[positive], truth_deltas, reduction="sum")
            positives = positives + positive.sum()
        count = divisor(positives)
        return {"classification": classification / count, "box": box / count}

    def _match(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """For each anchor the index of its box, or a negative number (A,)."""
        if len(boxes) == 0:
            return anchors.new_full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD, dtype=torch.int64)
        return self.matcher(box_iou(boxes, anchors))

    def _detect(
        self, logits: Tensor, deltas: Tensor, levels: list[Tensor], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Decode one image: logits (A, K), deltas (A, 4), its height and width in pixels."""
        sizes = [len(level) for level in levels]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for level_logits, level_deltas, anchors in zip(
            logits.float().split(sizes), deltas.float().split(sizes), levels, strict=True
        ):
            scores = level_logits.sigmoid().flatten()
            kept = torch.nonzero(scores > self.score_threshold).flatten()
            scores, best = scores[kept].topk(min(self.candidates, len(kept)))
            kept = kept[best]
            anchor, label = kept // logits.shape[-1], kept % logits.shape[-1]
            boxes = self.box_coder.decode_single(level_deltas[anchor], anchors[anchor])
            found.append((clip_boxes_to_image(boxes, size), scores, label))
        boxes, scores, labels = (torch.cat(part) for part in zip(*found, strict=True))
        kept = batched_nms(boxes, scores, labels, self.nms_iou)[: self.detections]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
