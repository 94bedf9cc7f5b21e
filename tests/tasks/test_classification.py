"""Classification: scores against scikit-learn's, mixed images, what a run leaves behind."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score
from torch import Tensor, nn

from pvt_bench.config.schedules import Schedule
from pvt_bench.measure.classification import accuracies, confusion
from pvt_bench.networks.classifier import Classifier
from pvt_bench.tasks.classification import Classification, rank, score_saved

CLASSES = 7


class View:
    """Twenty-three images whose pixels say which logits they get."""

    num_classes = CLASSES
    class_names = tuple(f"class {i}" for i in range(CLASSES))

    def __init__(self) -> None:
        numbers = np.random.default_rng(0)
        self.logits = torch.from_numpy(numbers.normal(size=(23, CLASSES))).float()
        self.labels = numbers.integers(0, CLASSES, 23)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = torch.zeros(3, 8, 8)
        image[0, 0, 0] = index / 100
        label = torch.tensor(int(self.labels[index]))
        return image, {"image_id": torch.tensor(index), "label": label}


class Lookup(nn.Module):
    """The logits that belong to an image of `View`."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view

    def forward(self, images: list[Tensor]) -> Tensor:
        return torch.stack([self.view.logits[round(float(i[0, 0, 0]) * 100)] for i in images])


def validated(view: View, batch_size: int) -> Classification:
    task = Classification(Lookup(view), None, view)
    task.on_validation_start()
    pairs = [view[index] for index in range(len(view))]
    for start in range(0, len(pairs), batch_size):
        images, targets = zip(*pairs[start : start + batch_size], strict=True)
        task.validation_step((list(images), list(targets)), 0)
    task.on_validation_end()
    return task


def test_scores_are_scikit_learns(tmp_path: Path) -> None:
    view = View()
    scores = validated(view, 4).score(tmp_path)
    guesses, every = view.logits.argmax(1).numpy(), range(CLASSES)
    top5 = top_k_accuracy_score(view.labels, view.logits.numpy(), k=5, labels=every)
    assert scores["val/top1"] == pytest.approx(accuracy_score(view.labels, guesses), abs=1e-9)
    assert scores["val/top5"] == pytest.approx(top5, abs=1e-9)
    assert 0 < scores["val/top1"] < scores["val/top5"] < 1
    theirs = confusion_matrix(view.labels, guesses, labels=every)
    assert (confusion(view.labels, guesses, CLASSES) == theirs).all()


def test_a_run_leaves_what_scores_it_again(tmp_path: Path) -> None:
    view = View()
    scores = validated(view, 23).score(tmp_path)
    for name in ("per_class.csv", "confusion.csv", "pictures/confusion.png"):
        (tmp_path / name).unlink()
    assert score_saved(view, tmp_path) == scores
    with (tmp_path / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(view.class_names)
    assert sum(int(row["images"]) for row in rows) == len(view)
    weighted = sum(float(row["top1"] or 0) * int(row["images"]) for row in rows)
    assert weighted / len(view) == pytest.approx(scores["val/top1"])
    assert (tmp_path / "pictures" / "predictions.png").stat().st_size > 1000


def test_what_is_kept_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    for size in (1, 5, 23):
        (tmp_path / str(size)).mkdir()
        validated(View(), size).score(tmp_path / str(size))
    kept = {size: (tmp_path / str(size) / "predictions.csv").read_bytes() for size in (1, 5, 23)}
    assert kept[1] == kept[5] == kept[23]


def test_equal_logits_are_no_hit() -> None:
    logits = torch.zeros(CLASSES)
    assert [rank(logits, label) for label in range(CLASSES)] == list(range(CLASSES))
    assert accuracies(np.array([0, 1, 2, 3, 4, 5, 6])) == {"top1": 1 / 7, "top5": 5 / 7}


class Backbone(nn.Module):
    """Logits from the mean colour."""

    mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((2, 3)))


@pytest.mark.parametrize("mix", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_images_and_labels_are_mixed_alike(mix: dict[str, float]) -> None:
    schedule = Schedule(name="test", batch_size=4, lr=0.1, steps=1, **mix)  # type: ignore[arg-type]
    view = View()
    network = Classifier(Backbone(), CLASSES, label_smoothing=0.1)
    task = Classification(network, None, view, schedule)
    labels = [0, 1, 2, 3]
    images = [torch.full((3, 8, 8), label / 10) for label in labels]
    targets = [{"image_id": torch.tensor(i), "label": torch.tensor(i)} for i in labels]
    mixed, shares = task.mix(torch.stack(images), torch.tensor(labels))
    # Each image is of one colour, so its mean tells the share of each of the two that it mixes.
    assert torch.allclose(shares @ torch.arange(CLASSES).float() / 10, mixed.mean((1, 2, 3)))
    assert torch.allclose(shares.sum(1), torch.ones(4))
    loss = task.training_step((images, targets), 0)["loss"]
    loss.backward()
    assert torch.isfinite(network.backbone.head.weight.grad).all()


def test_the_loss_is_the_cross_entropy_of_smoothed_targets() -> None:
    network = Classifier(Backbone(), CLASSES, label_smoothing=0.1)
    images = torch.rand(3, 3, 8, 8)
    labels = torch.tensor([1, 0, 5])
    smoothed = torch.full((3, CLASSES), 0.1 / CLASSES)
    smoothed[torch.arange(3), labels] += 0.9
    expected = -(smoothed * network(images).log_softmax(1)).sum(1).mean()
    loss = network(images, [{"label": label} for label in labels])["cross_entropy"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
