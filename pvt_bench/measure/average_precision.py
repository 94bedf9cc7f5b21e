"""Average precision of detections as COCO defines it (https://cocodataset.org/#detection-eval)."""

from typing import Any, Literal

from faster_coco_eval import COCO, COCOeval_faster

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def average_precision(
    ground_truth: dict[str, Any],
    detections: list[dict[str, Any]],
    kind: Literal["bbox", "segm"] = "bbox",
) -> dict[str, float]:
    """COCO's twelve numbers by name, as fractions; nan where there are no such objects.

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
    return {
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(NAMES, evaluator.stats[: len(NAMES)], strict=True)
    }


def _index(dataset: dict[str, Any]) -> COCO:
    return COCO(dataset, print_function=_keep_silent)


def _copy(annotations: list[dict[str, Any]], unused: str | None = None) -> list[dict[str, Any]]:
    # The evaluator writes into the annotations; the caller's stay as they are.
    return [{key: row[key] for key in row if key != unused} for row in annotations]


def _keep_silent(*_: object) -> None:
    pass
