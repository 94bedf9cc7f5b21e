"""Which true box an anchor or a region belongs to, by the rule of the released detectors.

The rule is that of mmdetection 2, `MaxIoUAssigner` with `gt_max_assign_all`.
"""

import torch
from torch import Tensor
from torchvision.ops import box_iou

# What `assign` gives instead of the index of a box.
BACKGROUND, IGNORED = -1, -2


def assign(
    candidates: Tensor,
    boxes: Tensor,
    positive: float,
    negative: float,
    minimum: float,
    valid: Tensor | None = None,
) -> Tensor:
    """Assign to each candidate the index of a box, `BACKGROUND` or `IGNORED` (A,).

    A candidate gets the box that it overlaps most, if their IoU is at least `positive`; it is
    background if that IoU is below `negative`, and ignored in between. Then each box takes the
    candidates of its own highest IoU, if that is at least `minimum`: all of them where several
    are equal, also those that another box overlaps more. Of two boxes the later one takes.

    candidates: anchors or regions (A, 4); boxes: the true boxes (n, 4), both XYXY in pixels.
    valid: (A,) bool; candidates that are not valid are ignored and no box's highest IoU.
    """
    assigned = torch.full((len(candidates),), BACKGROUND, device=candidates.device)
    if len(boxes) > 0 and len(candidates) > 0:
        overlaps = box_iou(boxes, candidates)
        if valid is not None:
            overlaps = overlaps.masked_fill(~valid, -1)
        best, index = overlaps.max(dim=0)
        assigned = assigned.masked_fill(best >= negative, IGNORED)
        assigned = torch.where(best >= positive, index, assigned)
        last = _last_taker(overlaps, minimum)
        assigned = torch.where(last >= 0, last, assigned)
    return assigned if valid is None else assigned.masked_fill(~valid, IGNORED)


def _last_taker(overlaps: Tensor, minimum: float) -> Tensor:
    """The last box that takes each candidate, or -1 (A,), from IoUs (n, A)."""
    highest = overlaps.max(dim=1, keepdim=True).values
    # In the release, with a minimum of 0, a box that overlaps nothing takes all that it does not
    # overlap: the whole image for a box outside of it. Here it takes nothing.
    takes = (overlaps == highest) & (highest >= minimum) & (highest > 0)
    numbers = torch.arange(len(overlaps), device=overlaps.device, dtype=torch.int32)
    return torch.where(takes, numbers[:, None], -1).max(dim=0).values.long()
