"""Image classification: mixing images in training, top-1 and top-5."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from timm.data import Mixup
from torch import Tensor, nn

from pvt_bench.escaping import to_csv
from pvt_bench.measure.classification import accuracies, confusion
from pvt_bench.tasks.base import BuildOptimizer, Task, tell_unscored
from pvt_bench.tasks.charts import draw_confusion
from pvt_bench.tasks.pictures import draw_classifications

KEPT = 5


class Classification(Task):
    """Trains a classifier; a result is an image's label, its best guesses and their logits."""

    def __init__(
        self,
        network: nn.Module,
        build_optimizer: BuildOptimizer | None,
        view: Any,
        schedule: Any = None,
    ) -> None:
        super().__init__(network, build_optimizer, view, schedule)
        self.mix: Mixup | None = None
        if schedule is not None and (schedule.mixup or schedule.cutmix):
            self.mix = Mixup(
                mixup_alpha=schedule.mixup,
                cutmix_alpha=schedule.cutmix,
                switch_prob=schedule.mix_switch,
                label_smoothing=0.0,  # the network's loss smooths
                num_classes=view.num_classes,
            )

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The losses on a batch, its images mixed in pairs where the schedule says so."""
        if self.mix is None:
            return super().training_step(batch, batch_idx)
        images, targets = batch
        mixed, shares = self.mix(
            torch.stack(images), torch.stack([target["label"] for target in targets])
        )
        return super().training_step(
            (mixed, [{**t, "shares": s} for t, s in zip(targets, shares, strict=True)]), batch_idx
        )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the best guesses of each image."""
        images, targets = batch
        if not images:  # of a process that has no batch
            return
        for logits, target in zip(self.network(images).float().cpu(), targets, strict=True):
            label = int(target["label"])
            best = logits.topk(min(KEPT, len(logits)))
            guess = {
                "label": label,
                "rank": rank(logits, label),
                "guesses": best.indices.tolist(),
                "logits": best.values.tolist(),
            }
            self.results.append((int(target["image_id"]), guess))

    def score(self, directory: Path) -> dict[str, float]:
        """Top-1 and top-5; writes predictions, the table by class, the confusion matrix."""
        write_predictions(directory / "predictions.csv", self.results)
        return score_saved(self.view, directory)


def rank(logits: Tensor, label: int) -> int:
    """How many classes are guessed before the label; of equal logits the first class is."""
    before = torch.arange(len(logits)) < label
    ahead = (logits > logits[label]) | ((logits == logits[label]) & before)
    return int(ahead.sum())


def write_predictions(path: Path, results: list[tuple[int, Any]]) -> None:
    """One line an image: its id and label, and what was guessed, the best first."""
    rows = [
        {
            "image_id": image_id,
            "label": result["label"],
            "rank": result["rank"],
            **{f"guess{i}": guess for i, guess in enumerate(result["guesses"], 1)},
            **{f"logit{i}": logit for i, logit in enumerate(result["logits"], 1)},
        }
        for image_id, result in results
    ]
    pd.DataFrame(rows).to_csv(path, index=False)


def score_saved(view: Any, directory: Path) -> dict[str, float]:
    """Score the predictions that a run has left, without its network."""
    predictions = pd.read_csv(directory / "predictions.csv")
    labels, guesses = predictions["label"].to_numpy(), predictions["guess1"].to_numpy()
    matrix = confusion(labels, guesses, view.num_classes)
    names = view.class_names
    tell_unscored("top1", names, (matrix.sum(axis=1) == 0).tolist())
    write_per_class(directory / "per_class.csv", names, matrix)
    counts = pd.DataFrame(matrix, names, names)
    (directory / "confusion.csv").write_text(to_csv(counts, index=True))
    draw_confusion(directory / "pictures" / "confusion.png", names, matrix)
    draw_classifications(directory / "pictures" / "predictions.png", view, predictions)
    scores = accuracies(predictions["rank"].to_numpy())
    return {f"val/{name}": value for name, value in scores.items()}


def write_per_class(path: Path, names: list[str], matrix: NDArray[np.int64]) -> None:
    """The top-1 accuracy and the number of images of each class; empty without images."""
    images = matrix.sum(axis=1)
    right = np.diag(matrix) / np.where(images, images, 1)
    top1 = np.where(images, right, np.nan)
    table = pd.DataFrame({"class": names, "top1": top1, "images": images})
    path.write_text(to_csv(table))
