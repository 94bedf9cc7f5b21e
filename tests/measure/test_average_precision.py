import math

import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pvt_bench.measure.average_precision import NAMES, evaluate

SIDE = 160


def _segmentation(box):
    x, y, width, height = (round(value) for value in box)
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    mask[y + height // 2 :, x + width // 2 :] = 0
    rle = mask_api.encode(mask)
    return {"size": [SIDE, SIDE], "counts": rle["counts"].decode()}


def _truth(rng, largest=140):
    annotations = []
    for image_id in range(1, 31):
        for _ in range(rng.integers(0, 8)):
            x, y = rng.uniform(0, 20, 2)
            width, height = rng.uniform(4, largest, 2)
            box = [x, y, width, height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice([1, 3, 90])),
                    "bbox": box,
                    "area": width * height * 0.7,
                    "iscrowd": int(rng.random() < 0.15),
                    "segmentation": _segmentation(box),
                }
            )
    return {
        "info": {},
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, 31)],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in (1, 3, 90)],
    }


def _detections(rng, truth, kind):
    detections = []
    for annotation in truth["annotations"]:
        for _ in range(rng.integers(0, 4)):
            box = np.abs(np.array(annotation["bbox"]) + rng.normal(0, 3, 4)) + 1
            label = annotation["category_id"] if rng.random() < 0.8 else 90
            place = (
                {"bbox": box.tolist()} if kind == "bbox" else {"segmentation": _segmentation(box)}
            )
            found = {"image_id": annotation["image_id"], "category_id": label}
            # Few distinct scores, so that ties are part of the comparison.
            detections.append({**found, "score": round(rng.random(), 1), **place})
    return detections


def _reference(truth, detections, kind):
    reference = COCO()
    reference.dataset = truth
    reference.createIndex()
    evaluator = COCOeval(reference, reference.loadRes([dict(d) for d in detections]), kind)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator.stats


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_equals_pycocotools(kind):
    rng = np.random.default_rng(3)
    truth = _truth(rng)
    detections = _detections(rng, truth, kind)
    scores = evaluate(truth, detections, kind).scores
    assert list(scores) == list(NAMES)
    assert list(scores.values()) == pytest.approx(_reference(truth, detections, kind), abs=1e-9)
    assert 0.05 < scores["AP"] < 0.95
    assert any(annotation["iscrowd"] for annotation in truth["annotations"])


def test_the_size_of_a_mask_is_not_that_of_its_box():
    rng = np.random.default_rng(4)
    truth = _truth(rng)
    detections = _detections(rng, truth, "segm")
    with_boxes = [{**found, "bbox": [0.0, 0.0, 150.0, 150.0]} for found in detections]
    scores = evaluate(truth, detections, "segm").scores
    assert evaluate(truth, with_boxes, "segm").scores == scores
    assert scores["APs"] > 0


def test_no_detections_score_zero_and_absent_sizes_are_nan():
    truth = _truth(np.random.default_rng(5), largest=30)
    scores = evaluate(truth, []).scores
    assert scores["AP"] == scores["AR100"] == scores["APs"] == 0
    assert math.isnan(scores["APl"])
    assert math.isnan(scores["ARl"])


def test_perfect_detections_score_one_and_nothing_is_printed_or_changed(capfd):
    truth = _truth(np.random.default_rng(6))
    before = repr(truth)
    keys = ("image_id", "category_id", "bbox")
    detections = [
        {key: row[key] for key in keys} | {"score": 1.0}
        for row in truth["annotations"]
        if not row["iscrowd"]
    ]
    unchanged = repr(detections)
    scores = evaluate(truth, detections).scores
    assert scores["AP"] == pytest.approx(1.0)
    assert repr(truth) == before
    assert repr(detections) == unchanged
    assert capfd.readouterr() == ("", "")
