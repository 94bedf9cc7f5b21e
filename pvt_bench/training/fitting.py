"""The training of a run: from its last checkpoint or from the start to the last step."""

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pvt_bench import processes
from pvt_bench.builders import build_module, count_workers
from pvt_bench.config.schema import Config
from pvt_bench.datasets.views import some_of
from pvt_bench.measure.usage import usage
from pvt_bench.screen import progress_bar, say, say_once, warn
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.record import Record
from pvt_bench.training.checkpoint import FOLDER, find_newest, load_checkpoint, save_checkpoint
from pvt_bench.training.optim import build_optimizer, count_steps, learning_rate


@dataclass
class Training:
    """One training; `data` holds the views by split."""

    config: Config
    record: Record
    mirror: Mirror
    data: dict[str, Any]
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        samples = len(self.data["train"])
        self.steps, self.epoch_steps = count_steps(self.config.schedule, samples)

    @property
    def checkpoints(self) -> Path:
        """Where the training keeps its state."""
        return self.record.directory / FOLDER

    @property
    def seconds(self) -> float:
        """Since the start, over all attempts, up to now."""
        return time.monotonic() - self.began

    def fit(self, network: nn.Module) -> Any:
        """Train to the last step; the task's module around the network to score.

        That is the average of the weights where the schedule asks for one.
        """
        schedule = self.config.schedule
        self._announce()
        newest = processes.first(lambda: find_newest(self.checkpoints, warn))
        fresh: dict[str, Any] = {"step": 0, "seconds": 0.0}
        state = load_checkpoint(newest) if newest else fresh
        start: int = state["step"]
        average = _average(network, schedule.ema)
        if start:
            network.load_state_dict(state["network"])
            done = start == self.steps
            say("trained before" if done else f"going on from step {start} of {self.steps}")
            if average is not None:
                average.load_state_dict(state["average"])
        self.record.cut(start)
        self.record.update(step=start, steps=self.steps)
        self.began -= state["seconds"]
        optimize = partial(
            build_optimizer,
            schedule=schedule,
            steps=self.steps,
            epoch_steps=self.epoch_steps,
            start=start,
            state=state.get("optimizer"),
        )
        module = build_module(self.config, network, optimize, self.data["val"])
        if start < self.steps:
            self._fit_from(start, module, average)
        damaged = self.data["train"].damaged
        if damaged is not None and damaged.any():
            say(f"{int(damaged.sum())} damaged images were skipped")
        if average is not None and self.steps:
            module.network = average.module
        return module

    def _announce(self) -> None:
        schedule, view = self.config.schedule, self.data["train"]
        left_out = [f"{number:,} {reason}" for reason, number in view.dropped.items() if number]
        left_out += [f"{number:,} files {end}" for end, number in view.left_out.items()]
        if left_out:
            say_once(f"left out of training: {', '.join(left_out)}")
        if view.unseen:
            warn(
                f"nothing in training is of {len(view.unseen)} of {view.num_classes} classes: "
                f"{some_of(view.unseen)}"
            )
        if schedule.reference_batch and schedule.reference_batch != schedule.batch_size:
            say(
                f"learning rate {learning_rate(schedule):g}: {schedule.lr:g} for a batch of "
                f"{schedule.reference_batch}, here {schedule.batch_size}"
            )

    def _fit_from(self, start: int, module: Any, average: AveragedModel | None) -> None:
        """Take the steps from `start` on, logged and saved as they go."""
        from pvt_bench.datasets.loading import Share, train_loader
        from pvt_bench.training.loop import Steps, fit

        config, schedule = self.config, self.config.schedule
        loader = train_loader(
            self.data["train"],
            schedule.batch_size,
            config.seed,
            count_workers(config),
            start,
            self.steps,
            schedule.repeats,
            Share(processes.rank(), processes.count()),
        )
        with progress_bar("training", self.steps, start) as bar:

            def log(step: int, values: dict[str, float]) -> None:
                seen = {"train/images_seen": float(step * schedule.batch_size)}
                self.record.log(step, values | seen | usage())
                bar.note = f"loss {values['train/loss']:.3f}"

            loop = Steps(
                start,
                self.steps,
                config.seed,
                config.trainer,
                log,
                partial(self._save, module, average),
                bar.advance,
                schedule.gradient_clip,
                average,
            )
            fit(module, loader, loop, self.record.directory)
        # Before other processes are forked off, which would inherit what its thread has locked.
        self.mirror.settle()

    def _save(self, module: Any, average: AveragedModel | None, step: int) -> None:
        if processes.rank() > 0:
            return
        state = {
            "step": step,
            "seconds": self.seconds,
            "network": module.network.state_dict(),
            "optimizer": module.optimizers(use_pl_optimizer=False).state_dict(),
        }
        if average is not None:
            state["average"] = average.state_dict()
        save_checkpoint(self.checkpoints, step, state, self.record.check_lease)
        self.record.update(step=step)
        self.mirror.push(step)


def _average(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """An average of the network's weights and statistics over the steps, if one is wanted."""
    if decay is None:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
