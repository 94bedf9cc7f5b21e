"""What all tasks share: a step over a dict of losses, and the optimizer."""

from collections.abc import Callable
from typing import Any

import lightning as L
from torch import Tensor, nn

from pvt_bench.training.loop import check_finite

BuildOptimizer = Callable[[nn.Module], tuple[Any, Any]]


class Task(L.LightningModule):
    """A network being trained.

    network: called with images and targets it gives a dict of losses, which are summed.
    build_optimizer: gives the optimizer and its schedule by step, for the network; None where
        the network is only scored.
    """

    def __init__(self, network: nn.Module, build_optimizer: BuildOptimizer | None) -> None:
        super().__init__()
        self.network = network
        self.build_optimizer = build_optimizer

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
