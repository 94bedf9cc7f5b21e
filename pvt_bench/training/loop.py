"""The one training loop: Lightning's Trainer, told when to log, to save and to stop.

The whole training is one epoch of Lightning's: its batches are those from the step that the run
stands at to the last. So there is no loop state to restore, and a resumed run does what an
uninterrupted one would have done.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from pvt_bench import processes
from pvt_bench.config.schema import Trainer
from pvt_bench.errors import Failed, Interrupted
from pvt_bench.training.interruption import Interruption
from pvt_bench.training.readers import end_readers, failures_named

WritePoint = Callable[[int, dict[str, float]], None]
WriteCheckpoint = Callable[[int], None]


class _Ending(L.Callback):
    """Ends the readers before Lightning waits for them, where the work ends too early."""

    def on_exception(self, *_: Any) -> None:
        end_readers()


@dataclass(eq=False)
class Steps(_Ending):
    """Seeds, logs and saves by the step of the run, and stops between two steps if asked to.

    step: where the run stands; steps: its last. average: of the weights, or none.
    """

    step: int
    steps: int
    seed: int
    options: Trainer
    write_point: WritePoint
    write_checkpoint: WriteCheckpoint
    advance: Callable[[], None]
    gradient_clip: float | None = None
    average: AveragedModel | None = None
    stop: int = 0
    interruption: Interruption = field(
        default_factory=lambda: Interruption("after this step, with a checkpoint")
    )

    def on_train_start(self, *_: Any) -> None:
        # Lightning answers SIGTERM by leaving at once, without a checkpoint.
        self.interruption.arm()

    def on_train_batch_start(self, *_: Any) -> None:
        # Drop path and the mixing of images draw from the global generators: from seed, step and
        # rank alone, a resumed run draws what an uninterrupted one would have drawn.
        rank = processes.rank()
        torch.manual_seed((self.seed << 32) + (rank << 26) + self.step)
        np.random.seed([self.seed, self.step, rank])  # noqa: NPY002

    def on_before_optimizer_step(
        self, trainer: L.Trainer, module: L.LightningModule, optimizer: Any
    ) -> None:
        # Lightning's own clipping refuses fused optimizers in mixed precision.
        if self.gradient_clip is not None:
            clip_grad_norm_(module.parameters(), self.gradient_clip)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.step += 1
        if self.average is not None:
            self.average.update_parameters(module.network)
        last = self.step == self.steps
        if self.step % self.options.log_every == 0 or last:
            means = processes.average(torch.stack([value.float() for value in outputs.values()]))
            names = (f"train/{name}" for name in outputs)
            values = dict(zip(names, means.tolist(), strict=True))
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self.write_point(self.step, values | {"train/lr": rate})
        self.advance()
        # The signal reaches each process at another moment: they stop after the same step.
        self.stop = max(processes.gather([self.interruption.received]))
        if self.step % self.options.checkpoint_every == 0 or last or self.stop:
            self.write_checkpoint(self.step)
        if self.stop:
            trainer.should_stop = True


def build_trainer(options: Trainer, directory: Path, **settings: Any) -> L.Trainer:
    """Lightning's Trainer on a leash: it runs the loop, and writes and prints nothing."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # They advise on features of Lightning's that are left off on purpose.
    warnings.filterwarnings("ignore", module=r"lightning\.")
    precision: Any = options.precision  # Lightning lists each that it knows.
    return L.Trainer(
        accelerator=options.accelerator,
        precision=precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=directory,
        **_process_settings(),
        **settings,
    )


def _process_settings() -> dict[str, Any]:
    """What the Trainer has to be told of the run's processes.

    The environment is always named: left to itself, Lightning would take a job of SLURM's for its
    own, and requeue it.
    """
    if processes.count() == 1:
        return {"devices": 1, "plugins": [LightningEnvironment()]}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return {
        "devices": here,
        "num_nodes": processes.count() // here,
        "plugins": [TorchElasticEnvironment()],
        # Some heads leave a level of the pyramid unused, and a batch without objects the masks.
        "strategy": DDPStrategy(find_unused_parameters=True),
        "use_distributed_sampler": False,
    }


@contextmanager
def _ended_well() -> Iterator[None]:
    """Name a reader that failed, pass on a Ctrl-C, which Lightning makes exit code 1, and leave no
    reader behind."""
    try:
        with failures_named():
            yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        end_readers()


def fit(module: L.LightningModule, loader: DataLoader[Any], loop: Steps, directory: Path) -> None:
    """Train to the last step; Interrupted where asked to stop before, after a checkpoint."""
    trainer = build_trainer(
        loop.options,
        directory,
        max_steps=loop.steps - loop.step,
        callbacks=[loop],
        limit_val_batches=0,
    )
    with loop.interruption:
        try:
            with _ended_well():
                trainer.fit(module, loader)
        except (Failed, RuntimeError):
            # A scheduler stops each process by itself: where a worker is gone first, the step
            # that waits for it fails, and the last checkpoint is what the next start goes on from.
            if not loop.interruption.received:
                raise
    if loop.step < loop.steps:
        signal = loop.stop or loop.interruption.received
        raise Interrupted(f"stopped after step {loop.step} of {loop.steps}", signal)


@dataclass(eq=False)
class _Scoring(_Ending):
    """Reports each batch that was scored, and stops between two of them if asked to."""

    advance: Callable[[int], None]
    interruption: Interruption

    def on_validation_start(self, *_: Any) -> None:
        self.interruption.arm()

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.advance(len(batch[0]))
        if self.interruption.received:
            raise Interrupted("stopped while scoring", self.interruption.received)


def validate(
    module: L.LightningModule,
    loader: DataLoader[Any],
    options: Trainer,
    directory: Path,
    advance: Callable[[int], None],
) -> None:
    """Run the module's validation over the loader; `advance` is told the images of each batch."""
    with Interruption("after these images; what was trained is kept") as interruption:
        trainer = build_trainer(options, directory, callbacks=[_Scoring(advance, interruption)])
        with _ended_well():
            trainer.validate(module, loader, verbose=False)
