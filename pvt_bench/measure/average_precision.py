"""Average precision of detections as COCO defines it (https://cocodataset.org/#detection-eval)."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
Kind = Literal["bbox", "segm"]


@dataclass(frozen=True)
class Evaluation:
    """What COCO's evaluator found.

    scores: its twelve numbers by name, as fractions; nan where there are no such objects.
    precision: at IoU 0.5, 0.55, ... 0.95, at recall 0, 0.01, ... 1, of each class (10, 101, K),
        for objects of all sizes and 100 detections an image; nan for classes without objects.
    category_ids: the classes in that order.
    """

    scores: dict[str, float]
    precision: NDArray[np.float64]
    category_ids: list[int]


def evaluate(
    ground_truth: dict[str, Any], detections: list[dict[str, Any]], kind: Kind = "bbox"
) -> Evaluation:
    """Score detections of all images of an annotation file.

    `ground_truth` is the content of an annotation file. `detections` are in COCO's results format
    and in pixels of the original images: dicts of `image_id`, `category_id` (the file's own),
    `score`, and `bbox` as XYWH or `segmentation` as run lengths. No detections score zero.
    """
    # With a box in its results, COCO's code sorts masks into small, medium and large by box area.
    unused = "bbox" if kind == "segm" else None
    truth = _index({**ground_truth, "annotations": _copy(ground_truth["annotations"])})
    if detections:
        found = truth.loadRes(_copy(detections, unused))
    else:
        found = _index({**ground_truth, "annotations": []})
    evaluator = COCOeval_faster(truth, found, iouType=kind, print_function=_keep_silent)
    evaluator.run()
    scores = {
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(NAMES, evaluator.stats[: len(NAMES)], strict=True)
    }
    # Of the axes of areas and of detections an image, all sizes are first, 100 are last.
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]
    absent = np.where(precision < 0, np.nan, precision)
    return Evaluation(scores, absent, [int(i) for i in evaluator.params.catIds])


def _index(dataset: dict[str, Any]) -> COCO:
    return COCO(dataset, print_function=_keep_silent)


def _copy(annotations: list[dict[str, Any]], unused: str | None = None) -> list[dict[str, Any]]:
    # The evaluator writes into the annotations; the caller's stay as they are.
    return [{key: row[key] for key in row if key != unused} for row in annotations]


def _keep_silent(*_: object) -> None:
    pass
