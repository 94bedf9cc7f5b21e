"""Optimizers and learning-rate schedules, as functions of a schedule and of the step."""

import math
from functools import partial
from typing import Any, Protocol

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pvt_bench.errors import InputError


class Schedule(Protocol):
    """What is read of `pvt_bench.config.Schedule`; see there."""

    epochs: int | None
    steps: int | None
    batch_size: int
    optimizer: str
    lr: float
    weight_decay: float
    momentum: float
    warmup_steps: int
    warmup_ratio: float
    decay: str
    milestones: list[int]
    gamma: float


def count_steps(schedule: Schedule, samples: int) -> tuple[int, int]:
    """Steps of the whole training, and of one epoch, over `samples` samples.

    The last batch of an epoch is left out where it would be smaller than the others.
    """
    if (schedule.epochs is None) == (schedule.steps is None):
        raise InputError(
            "The schedule needs either epochs or steps, and has "
            f"schedule.epochs={schedule.epochs} and schedule.steps={schedule.steps}. "
            "Type schedule.epochs=12 schedule.steps=null, or the other way round."
        )
    if not 1 <= schedule.batch_size <= samples:
        raise InputError(
            f"schedule.batch_size={schedule.batch_size} must be at least 1 and at most "
            f"{samples}, the number of training images. Type for example "
            f"schedule.batch_size={min(8, samples)}."
        )
    epoch = samples // schedule.batch_size
    steps = schedule.steps if schedule.epochs is None else schedule.epochs * epoch
    if steps is None or steps < 0:
        raise InputError(f"schedule.steps={steps} must not be negative.")
    return steps, epoch


def rate_factor(step: int, schedule: Schedule, steps: int, epoch_steps: int) -> float:
    """The learning rate at `step` as a fraction of `schedule.lr`."""
    factor = 1.0
    if schedule.decay == "step":
        passed = sum(step >= milestone * epoch_steps for milestone in schedule.milestones)
        factor = schedule.gamma**passed
    elif step >= schedule.warmup_steps:
        remaining = max(1, steps - schedule.warmup_steps)
        factor = 0.5 * (1 + math.cos(math.pi * (step - schedule.warmup_steps) / remaining))
    if step < schedule.warmup_steps:
        rise = step / schedule.warmup_steps
        factor *= schedule.warmup_ratio + (1 - schedule.warmup_ratio) * rise
    return factor


def build_optimizer(
    network: nn.Module,
    schedule: Schedule,
    steps: int,
    epoch_steps: int,
    start: int = 0,
    state: dict[str, Any] | None = None,
) -> tuple[Optimizer, LambdaLR]:
    """The optimizer over the trainable parameters, and its schedule standing at step `start`.

    state: of an earlier optimizer over the same parameters, to go on from.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    rate, decay = schedule.lr, schedule.weight_decay
    optimizer: Optimizer
    # Fused, a step passes over the parameters once: unfused, a dozen times.
    if schedule.optimizer == "adamw":
        optimizer = AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
    else:
        momentum = schedule.momentum
        optimizer = SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay, fused=True)
    if state is not None:
        optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        group["initial_lr"] = rate
    factor = partial(rate_factor, schedule=schedule, steps=steps, epoch_steps=epoch_steps)
    return optimizer, LambdaLR(optimizer, factor, last_epoch=start - 1)
