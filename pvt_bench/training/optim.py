"""Optimizers and learning-rate schedules, as functions of a schedule and of the step."""

import math
from collections import defaultdict
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pvt_bench.config.schedules import Schedule
from pvt_bench.errors import InputError

POSITIONS = ("pos_embed", "cls_token", "dist_token", "cls_position")


def count_steps(schedule: Schedule, samples: int) -> tuple[int, int]:
    """Steps of the whole training, and of one epoch, over `samples` samples.

    The last batch of an epoch is left out where it would be smaller than the others.
    """
    if (schedule.epochs is None) == (schedule.steps is None):
        raise InputError(
            "The schedule needs either epochs or steps, and has "
            f"schedule.epochs={schedule.epochs} and schedule.steps={schedule.steps}. "
            "Use schedule.epochs=12 schedule.steps=null, or the other way round."
        )
    if not 1 <= schedule.batch_size <= samples:
        raise InputError(
            f"schedule.batch_size={schedule.batch_size} must be at least 1 and at most "
            f"{samples}, the number of training images. Use for example "
            f"schedule.batch_size={min(8, samples)}."
        )
    epoch = samples // schedule.batch_size
    steps = schedule.steps if schedule.epochs is None else schedule.epochs * epoch
    if steps is None or steps < 0:
        raise InputError(f"schedule.steps={steps} must not be negative.")
    return steps, epoch


def learning_rate(schedule: Schedule) -> float:
    """The highest learning rate, for the batch that the schedule has."""
    reference = schedule.reference_batch
    return schedule.lr * (schedule.batch_size / reference if reference else 1.0)


def rate_factor(step: int, schedule: Schedule, steps: int, epoch_steps: int) -> float:
    """The learning rate at `step` as a fraction of the highest."""
    warmup = schedule.warmup_steps + schedule.warmup_epochs * epoch_steps
    factor = 1.0
    if schedule.decay == "step":
        passed = sum(step >= milestone * epoch_steps for milestone in schedule.milestones)
        factor = schedule.gamma**passed
    elif step >= warmup:
        progress = (step - warmup) / max(1, steps - warmup)
        fallen = {
            "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
            "poly": max(0.0, 1 - progress) ** schedule.power,
        }[schedule.decay]
        floor = schedule.min_lr / schedule.lr
        factor = floor + (1 - floor) * fallen
    if step < warmup:
        factor *= schedule.warmup_ratio + (1 - schedule.warmup_ratio) * step / warmup
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
    groups = parameter_groups(network, schedule)
    rate = learning_rate(schedule)
    optimizer: Optimizer
    # Fused, a step passes over the parameters once: unfused, a dozen times.
    if schedule.optimizer == "adamw":
        optimizer = AdamW(groups, lr=rate, fused=True)
    else:
        optimizer = SGD(groups, lr=rate, momentum=schedule.momentum, fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    if state is not None:
        optimizer.load_state_dict(state)
    for group, highest in zip(optimizer.param_groups, rates, strict=True):
        group["initial_lr"] = highest
    factor = partial(rate_factor, schedule=schedule, steps=steps, epoch_steps=epoch_steps)
    return optimizer, LambdaLR(optimizer, factor, last_epoch=start - 1)


def parameter_groups(network: nn.Module, schedule: Schedule) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by their learning rate and weight decay."""
    rate = learning_rate(schedule)
    groups: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        own = rate * (schedule.backbone_lr if name.startswith("backbone.") else 1.0)
        spared = parameter.ndim == 1 or name.rpartition(".")[2] in POSITIONS
        decay = 0.0 if spared and schedule.no_decay_vectors else schedule.weight_decay
        groups[own, decay].append(parameter)
    return [
        {"params": parameters, "lr": own, "weight_decay": decay}
        for (own, decay), parameters in groups.items()
    ]
