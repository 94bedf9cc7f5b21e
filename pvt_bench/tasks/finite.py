"""Training stops on all processes together where the loss of one of them is not a number."""

import torch
from torch import Tensor

from pvt_bench import processes


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
        f"the {' and the '.join(names)} loss on the images {ids}" for names, ids in seen
    )
    raise FloatingPointError(
        f"The loss is not finite: {told}. "
        "The last checkpoint is kept; a lower schedule.lr or a schedule.gradient_clip may help."
    )
