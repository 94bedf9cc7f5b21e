"""What all tasks share: a step over a dict of losses, the optimizer, results by image."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from pvt_bench import processes
from pvt_bench.datasets.views import some_of
from pvt_bench.screen import warn

BuildOptimizer = Callable[[nn.Module], tuple[Any, Any]]
# What a task keeps of an image: its id first, so that the order in which images come is forgotten.
Result = tuple[int, Any]
# Images that a message names.
NAMED = 20


def tell_unscored(metric: str, names: Sequence[str], unscored: Sequence[bool]) -> None:
    """Say that a mean is over fewer classes than the data names."""
    missing = [name for name, absent in zip(names, unscored, strict=True) if absent]
    if missing:
        warn(
            f"{metric} is over {len(names) - len(missing)} of {len(names)} classes: the validation "
            f"has nothing of {some_of(missing)}"
        )


def check_finite(losses: dict[str, Tensor], image_ids: list[int]) -> None:
    """Go on only where the losses of all processes are finite; every process must call it.

    losses: of this process, each (); image_ids: of the images that they were measured on.

    Raises:
        FloatingPointError: on each process the same, with the parts of the loss and the images of
            the processes that saw it.
    """
    finite = torch.stack([loss.detach().isfinite() for loss in losses.values()])
    if processes.all_of(finite.all()):
        return
    parts = [name for name, fine in zip(losses, finite.tolist(), strict=True) if not fine]
    seen = processes.gather([(parts, image_ids)] if parts else [])
    told = "; ".join(
        f"the {' and the '.join(names)} loss on the images [{some_of(list(map(str, ids)), NAMED)}]"
        for names, ids in seen
    )
    raise FloatingPointError(
        f"The loss is not finite: {told}. "
        "The last checkpoint is kept; a lower schedule.lr or a schedule.gradient_clip may help."
    )


class Task(L.LightningModule):
    """A network being trained, and what it predicts for the validation images.

    network: called with images and targets it gives a dict of losses, which are summed.
    build_optimizer: gives the optimizer and its schedule by step, for the network; None where
        the network is only scored.
    view: the validation images.
    schedule: `pvt_bench.config.Schedule`; None where the network is only scored.

    After a validation, `results` holds a pair of image id and prediction for each image, of all
    processes, sorted by image id.
    """

    def __init__(
        self,
        network: nn.Module,
        build_optimizer: BuildOptimizer | None,
        view: Any,
        schedule: Any = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.build_optimizer = build_optimizer
        self.view = view
        self.schedule = schedule
        self.results: list[Result] = []

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """`loss` and its parts, on a batch of images and targets."""
        images, targets = batch
        losses = self.network(images, targets)
        check_finite(losses, [int(target["image_id"]) for target in targets])
        parts = {name: loss.detach() for name, loss in losses.items()}
        return {"loss": sum(losses.values()), **parts}

    def configure_optimizers(self) -> Any:
        """One optimizer, its rate set at every step."""
        assert self.build_optimizer is not None
        optimizer, schedule = self.build_optimizer(self.network)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_validation_start(self) -> None:
        """Forget the results of an earlier validation."""
        self.results = []

    def on_validation_end(self) -> None:
        """Bring the results of all processes together, in an order that no process decides."""
        self.results = sorted(processes.gather(self.results), key=lambda result: result[0])

    def score(self, directory: Path) -> dict[str, float]:
        """The metrics of the results as fractions, `val/...`, the headline first.

        Writes predictions, tables by class and pictures into the directory.
        """
        raise NotImplementedError
