"""Object detection, scored as COCO does."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from faster_coco_eval.core import mask as mask_api
from torch import Tensor
from torch.nn import functional as F

from pvt_bench.escaping import to_csv
from pvt_bench.measure.average_precision import Evaluation, Kind, evaluate
from pvt_bench.tasks.base import Task, tell_unscored
from pvt_bench.tasks.charts import draw_precision_recall
from pvt_bench.tasks.pictures import draw_detections

Found = list[dict[str, Any]]
IOU50, IOU75 = 0, 5  # places on the evaluator's axis of IoU thresholds
MASK_THRESHOLD = 0.5


class Detection(Task):
    """Trains a detector; a result are an image's detections in COCO's format for results.

    view: the validation images; the network's labels are in the order of its `category_ids`.
    """

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Detect on a batch; boxes and masks go back to the pixels of the original images."""
        by_size: dict[torch.Size, list[tuple[Tensor, dict[str, Tensor]]]] = defaultdict(list)
        for image, target in zip(*batch, strict=True):
            by_size[image.shape].append((image, target))
        # One size at a time: padding up to a larger neighbour would change what is found, since
        # attention sees the padding, and scores must not depend on how images are batched.
        for pairs in by_size.values():
            predictions = self.network([image for image, _ in pairs])
            for (image, target), prediction in zip(pairs, predictions, strict=True):
                found = self._found(image, target, prediction)
                self.results.append((int(target["image_id"]), found))

    def score(self, directory: Path) -> dict[str, float]:
        """COCO's twelve numbers, of boxes and of masks; writes predictions, tables, pictures."""
        write_predictions(directory / "predictions.json", self.results)
        return score_saved(self.view, directory)

    def _found(
        self, image: Tensor, target: dict[str, Tensor], prediction: dict[str, Tensor]
    ) -> Found:
        height, width = (int(side) for side in target["size"])
        scale = torch.tensor([width / image.shape[-1], height / image.shape[-2]] * 2)
        boxes = prediction["boxes"].float().cpu() * scale
        found: Found = [
            {
                "image_id": int(target["image_id"]),
                "category_id": self.view.category_ids[label],
                "bbox": [left, top, right - left, bottom - top],
                "score": score,
            }
            for (left, top, right, bottom), score, label in zip(
                boxes.tolist(),
                prediction["scores"].tolist(),
                prediction["labels"].tolist(),
                strict=True,
            )
        ]
        if "masks" in prediction:
            masks = prediction["masks"].float().cpu()
            for each, box, mask in zip(found, boxes, masks, strict=True):
                each["segmentation"] = encode_mask(mask, box, (height, width))
        return found


def encode_mask(mask: Tensor, box: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    """Run lengths of a mask of probabilities in its box (28, 28) at its place in the image.

    box: (4,) XYXY in pixels of an image of `size` (height, width). The mask is sampled at the
    centre of each pixel; torchvision's pasting rounds the box, and costs a small object a tenth.
    """
    left, top, right, bottom = box.tolist()
    columns = slice(max(0, math.floor(left)), min(size[1], math.ceil(right)))
    rows = slice(max(0, math.floor(top)), min(size[0], math.ceil(bottom)))
    across = (torch.arange(columns.start, columns.stop) + 0.5 - left) / (right - left)
    down = (torch.arange(rows.start, rows.stop) + 0.5 - top) / (bottom - top)
    # From -1 to 1 over the box, as grid_sample counts.
    grid = 2 * torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1) - 1
    inside = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
    pasted = np.zeros(size, np.uint8, order="F")
    pasted[rows, columns] = inside >= MASK_THRESHOLD
    return {"size": list(size), "counts": mask_api.encode(pasted)["counts"].decode()}


def write_predictions(path: Path, results: list[tuple[int, Found]]) -> None:
    """All detections in the order of the images, in COCO's format for results."""
    path.write_text(json.dumps([each for _, of_image in results for each in of_image]))


def score_saved(view: Any, directory: Path) -> dict[str, float]:
    """Score the predictions that a run has left, without its network.

    Metrics of boxes are `val/AP` and so on; of masks, where the view has them, `val/mask_AP`.
    """
    found: Found = json.loads((directory / "predictions.json").read_text())
    kinds: dict[str, Kind] = {"": "bbox"}
    if "masks" in view[0][1]:
        kinds["mask_"] = "segm"
    parts = {prefix: evaluate(view.ground_truth, found, kind) for prefix, kind in kinds.items()}
    absent = np.isnan(parts[""].precision[0, 0]).tolist()
    tell_unscored("AP", view.class_names, absent)
    write_per_class(directory / "per_class.csv", view.ground_truth, parts)
    curves = precision_recall(parts)
    curves.to_csv(directory / "precision_recall.csv", index=False)
    draw_precision_recall(directory / "pictures" / "precision_recall.png", curves)
    draw_detections(directory / "pictures" / "predictions.png", view, found)
    return {
        f"val/{prefix}{name}": value
        for prefix, part in parts.items()
        for name, value in part.scores.items()
    }


def write_per_class(path: Path, truth: dict[str, Any], parts: dict[str, Evaluation]) -> None:
    """AP and AP50 of each class, and its images and boxes without crowds; empty without boxes."""
    objects = pd.DataFrame(
        [(a["category_id"], a["image_id"]) for a in truth["annotations"] if not a["iscrowd"]],
        columns=["class", "image"],
    )
    by_class = objects.groupby("class")["image"].agg(["nunique", "count"])
    names = {kind["id"]: kind["name"] for kind in truth["categories"]}
    ids = parts[""].category_ids
    table = pd.DataFrame({"class": [names[each] for each in ids]})
    for prefix, part in parts.items():
        table[f"{prefix}AP"] = part.precision.mean(axis=(0, 1))
        table[f"{prefix}AP50"] = part.precision[IOU50].mean(axis=0)
    counts = by_class.reindex(ids, fill_value=0)
    table["images"], table["boxes"] = counts["nunique"].to_numpy(), counts["count"].to_numpy()
    path.write_text(to_csv(table))


def precision_recall(parts: dict[str, Evaluation]) -> pd.DataFrame:
    """Precision at each recall at IoU 0.5 and 0.75, the mean over the classes with objects."""
    curves = {"recall": np.linspace(0, 1, parts[""].precision.shape[1])}
    for prefix, part in parts.items():
        present = ~np.isnan(part.precision[0, 0])
        for name, place in (("50", IOU50), ("75", IOU75)):
            kept = part.precision[place][:, present]
            curves[f"{prefix}precision{name}"] = (
                kept.mean(axis=1) if present.any() else np.full(len(kept), np.nan)
            )
    return pd.DataFrame(curves)
