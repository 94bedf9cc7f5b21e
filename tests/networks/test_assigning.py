"""The assignment of true boxes against the released rule, written out in loops over exact IoUs."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from pvt_bench.networks.assigning import BACKGROUND, IGNORED, assign

RETINANET, PROPOSALS, REGIONS = (0.5, 0.4, 0.0), (0.7, 0.3, 0.3), (0.5, 0.5, 0.5)


def iou(first: Sequence[Any], second: Sequence[Any]) -> Any:
    """Intersection over union of two boxes, exact for whole coordinates."""
    sides = [min(first[i + 2], second[i + 2]) - max(first[i], second[i]) for i in (0, 1)]
    common = sides[0] * sides[1] if min(sides) > 0 else 0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    union = sum(areas) - common
    return Fraction(common, union) if isinstance(union, int) else common / union


def by_rule(ious: Any, positive: float, negative: float, minimum: float) -> list[int]:
    """The steps of mmdetection's `MaxIoUAssigner`, candidate by candidate and box by box."""
    boxes, candidates = range(len(ious)), range(len(ious[0]) if len(ious) else ious.shape[1])
    thresholds = [Fraction(str(each)) for each in (positive, negative, minimum)]
    found = [IGNORED for _ in candidates]
    for candidate in candidates:
        best = max((ious[box][candidate] for box in boxes), default=0)
        if best < thresholds[1]:
            found[candidate] = BACKGROUND
        if best >= thresholds[0]:
            found[candidate] = next(box for box in boxes if ious[box][candidate] == best)
    for box in boxes:
        most = max(ious[box])
        for candidate in candidates:
            if most > 0 and most >= thresholds[2] and ious[box][candidate] == most:
                found[candidate] = box
    return found


def some_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Boxes of few whole coordinates, so that many IoUs are equal."""
    corners = torch.randint(0, 8, (count, 2), generator=generator)
    sides = torch.randint(1, 7, (count, 2), generator=generator)
    return torch.cat([corners, corners + sides], dim=1)


@pytest.mark.parametrize("thresholds", [RETINANET, PROPOSALS, REGIONS])
def test_the_rule_is_that_of_the_release(thresholds: tuple[float, float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    differ = 0
    for count in (1, 2, 5, 12) * 4:
        boxes, candidates = some_boxes(count, generator), some_boxes(60, generator)
        ious = [[iou(a, b) for b in candidates.tolist()] for a in boxes.tolist()]
        expected = by_rule(ious, *thresholds)
        assert assign(candidates.float(), boxes.float(), *thresholds).tolist() == expected
        matcher = Matcher(*thresholds[:2], allow_low_quality_matches=True)
        overlaps = box_iou(boxes.float(), candidates.float())
        differ += matcher(overlaps).tolist() != expected
    assert differ > 0, "torchvision's rule would have passed too"


def test_a_box_takes_its_best_candidates_from_a_better_one() -> None:
    """The first candidate is the first box exactly, but the best of the second box too; the two
    last are equally good for the third box.
    """
    candidates = torch.tensor([[0.0, 0, 10, 10], [30, 0, 40, 10], [32, 0, 42, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [31, 0, 41, 10]])
    assert assign(candidates, boxes, *RETINANET).tolist() == [1, 2, 2]
    assert assign(candidates, boxes[[1, 0, 2]], *RETINANET).tolist() == [1, 2, 2]


def test_a_best_candidate_needs_the_minimum() -> None:
    """An IoU of 0.25: enough for RetinaNet, which has no minimum, too little for proposals."""
    candidate, box = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 5, 5]])
    assert assign(candidate, box, *RETINANET).tolist() == [0]
    assert assign(candidate, box, *PROPOSALS).tolist() == [BACKGROUND]


def test_a_box_beside_all_candidates_takes_none() -> None:
    candidates = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    boxes = torch.tensor([[50.0, 50, 60, 60], [0, 0, 10, 9]])
    assert assign(candidates, boxes, *RETINANET).tolist() == [1, BACKGROUND]
    assert assign(candidates, boxes[:1], *RETINANET).tolist() == [BACKGROUND] * 2


def test_candidates_that_are_not_valid_take_no_part() -> None:
    """Neither of the two that the box overlaps more keeps the third from being its best."""
    candidates = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 3, 10], [50, 0, 60, 10]])
    box = torch.tensor([[0.0, 0, 10, 10]])
    valid = torch.tensor([False, False, True, True])
    assert assign(candidates, box, *RETINANET, valid).tolist() == [IGNORED, IGNORED, 0, BACKGROUND]
    none = assign(candidates, box[:0], *RETINANET, valid).tolist()
    assert none == [IGNORED, IGNORED, BACKGROUND, BACKGROUND]


def test_no_candidates_and_no_boxes() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    assert assign(box[:0], box, *REGIONS).shape == (0,)
    assert assign(box, box[:0], *REGIONS).tolist() == [BACKGROUND]
    assert assign(box[:0], box[:0], *REGIONS).dtype == torch.int64
