"""Keys of `schedule`."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING


class Optimizer(StrEnum):
    """The optimizers of the published recipes."""

    adamw = "adamw"
    sgd = "sgd"


class Decay(StrEnum):
    """How the learning rate falls: by `gamma` at each milestone, as half a cosine, or as
    `(1 - progress) ** power`."""

    step = "step"
    cosine = "cosine"
    poly = "poly"


@dataclass
class Schedule:
    """How long and with which learning rates a network is trained.

    name: name of the schedule in tables, such as 1x.
    epochs: length of the training in epochs; exactly one of `epochs` and `steps` is set.
    steps: length of the training in steps.
    batch_size: images per step, over all devices.
    reference_batch: batch size that `lr` and `min_lr` belong to: they grow and shrink with
        `batch_size`. Null: they are used as they are.
    optimizer: optimizer of the published recipe.
    lr: learning rate after the warmup.
    min_lr: learning rate at the end of a cosine or polynomial decay.
    weight_decay: weight decay.
    no_decay_vectors: no weight decay on norms, biases and position embeddings.
    momentum: momentum of SGD.
    backbone_lr: factor on the learning rate of the backbone.
    warmup_steps: steps during which the learning rate rises linearly.
    warmup_epochs: epochs of warmup, added to `warmup_steps`.
    warmup_ratio: share of `lr` at which the warmup starts.
    decay: how the learning rate falls: by `gamma` at each milestone, as half a cosine, or as
        (1 - progress) ^ `power`.
    milestones: epochs at whose end the learning rate is multiplied by `gamma` (decay: step).
    gamma: factor on the learning rate at a milestone.
    power: exponent of the polynomial decay.
    gradient_clip: largest norm of the gradient; null does not clip.
    ema: decay per step of an average of the weights, which is scored and kept; null keeps none.
    repeats: copies of an image in a batch, each augmented by itself (arXiv 1901.09335).
    mixup: alpha of mixing two images of a batch (arXiv 1710.09412); 0 does not mix.
    cutmix: alpha of pasting a part of one image into another (arXiv 1905.04899); 0 pastes none.
    mix_switch: probability of CutMix where both are on.
    shorter_side: shorter side of COCO's images in pixels, where a schedule was published with
        its own; of several, training draws one and the test takes the last.
    longer_side: longest side of COCO's images in pixels, likewise.
    """

    name: str = MISSING
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = MISSING
    reference_batch: int | None = None
    optimizer: Optimizer = Optimizer.adamw
    lr: float = MISSING
    min_lr: float = 0.0
    weight_decay: float = 0.0
    no_decay_vectors: bool = False
    momentum: float = 0.9
    backbone_lr: float = 1.0
    warmup_steps: int = 0
    warmup_epochs: int = 0
    warmup_ratio: float = 0.001
    decay: Decay = Decay.step
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1
    power: float = 0.9
    gradient_clip: float | None = None
    ema: float | None = None
    repeats: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_switch: float = 0.5
    shorter_side: Any = None
    longer_side: int | None = None
