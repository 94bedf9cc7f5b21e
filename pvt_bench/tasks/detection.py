"""Object detection, scored as COCO does."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pvt_bench.measure.average_precision import average_precision
from pvt_bench.tasks.base import BuildOptimizer, Task
from pvt_bench.tasks.pictures import draw_detections


class Detection(Task):
    """Trains a detector; collects what it finds on the validation images.

    view: the validation images; the network's labels are in the order of its `category_ids`.
    After a validation, `found` holds the detections in COCO's format for results.
    """

    def __init__(
        self, network: nn.Module, build_optimizer: BuildOptimizer | None, view: Any
    ) -> None:
        super().__init__(network, build_optimizer)
        self.view = view
        self.found: list[dict[str, Any]] = []

    def on_validation_start(self) -> None:
        """Forget what an earlier validation found."""
        self.found = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Detect on a batch; boxes go back to the pixels of the original images."""
        by_size: dict[torch.Size, list[tuple[Tensor, dict[str, Tensor]]]] = defaultdict(list)
        for image, target in zip(*batch, strict=True):
            by_size[image.shape].append((image, target))
        # One size at a time: padding up to a larger neighbour would change what is found, since
        # attention sees the padding, and scores must not depend on how images are batched.
        for pairs in by_size.values():
            predictions = self.network([image for image, _ in pairs])
            for (image, target), prediction in zip(pairs, predictions, strict=True):
                self.found.extend(self._results(image, target, prediction))

    def score(self, directory: Path) -> dict[str, float]:
        """COCO's twelve numbers as fractions, `val/AP` first.

        Writes `predictions.json` and `pictures/predictions.png` into the directory.
        """
        (directory / "predictions.json").write_text(json.dumps(self.found))
        draw_detections(directory / "pictures" / "predictions.png", self.view, self.found)
        scores = average_precision(self.view.ground_truth, self.found)
        return {f"val/{name}": value for name, value in scores.items()}

    def _results(
        self, image: Tensor, target: dict[str, Tensor], prediction: dict[str, Tensor]
    ) -> list[dict[str, Any]]:
        height, width = (int(side) for side in target["size"])
        scale = torch.tensor([width / image.shape[-1], height / image.shape[-2]] * 2)
        boxes = prediction["boxes"].float().cpu() * scale
        boxes[:, 2:] -= boxes[:, :2]
        return [
            {
                "image_id": int(target["image_id"]),
                "category_id": self.view.category_ids[label],
                "bbox": box,
                "score": score,
            }
            for box, score, label in zip(
                boxes.tolist(),
                prediction["scores"].tolist(),
                prediction["labels"].tolist(),
                strict=True,
            )
        ]
