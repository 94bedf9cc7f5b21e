"""One run from top to bottom: check, open the record, work, show the row. Read this first.

Whatever can be found wrong with the input is found before the record is opened.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from pvt_bench import describing
from pvt_bench.building import (
    build_loaded,
    build_module,
    build_network,
    build_skeleton,
    check,
    count_workers,
    device,
    open_data,
)
from pvt_bench.config import Mode
from pvt_bench.describing import Outcome
from pvt_bench.fitting import Training
from pvt_bench.measure.cost import measure_cost, measure_with_fvcore
from pvt_bench.measure.speed import describe_device, measure_speed
from pvt_bench.screen import progress_bar, say, warn
from pvt_bench.tracking.environment import environment, source_commit
from pvt_bench.tracking.mlflow import Mirror, check_uri, default_uri
from pvt_bench.tracking.record import Record
from pvt_bench.training import processes
from pvt_bench.training.interruption import Interrupted
from pvt_bench.training.optim import count_steps

Row = dict[str, float]
# What MLflow gets of a record, where it is there.
ARTIFACTS = (
    "config.yaml",
    "environment.json",
    "predictions.json",
    "predictions.csv",
    "per_class.csv",
    "confusion.csv",
    "precision_recall.csv",
)


@dataclass
class Work:
    """What a mode works with.

    skeleton: the network of the published protocol on the meta device; data: views by split;
    steps, epoch_steps: of the whole training, and of one epoch.
    """

    config: DictConfig
    record: Record
    mirror: Mirror
    skeleton: nn.Module
    data: dict[str, Any]
    steps: int
    epoch_steps: int

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are while the run is not finished."""
        return self.record.directory / "checkpoints"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the published protocol."""
        height, width = self.config.task.protocol.size
        return height, width


def run(config: DictConfig, dataset_line: str = "") -> Outcome:
    """Do what `config.mode` says, or give the result if it was done before.

    Raises InputError for what the user can mend; Interrupted where asked to stop, after a
    checkpoint.
    """
    uri = config.tracking.uri or default_uri(config.results_dir)
    check_uri(uri)
    check(config)
    skeleton = build_skeleton(config)
    data, length = {}, (0, 0)
    if config.mode in (Mode.train, Mode.test):
        say(dataset_line)
        data = open_data(config)
    if config.mode == Mode.train:
        length = count_steps(config.schedule, len(data["train"]))
    with Record.open(
        describing.read_keys(config),
        config.results_dir,
        describing.label(config),
        describing.digests(config, data),
        config.rerun,
    ) as record:
        mirror = open_mirror(config, record, uri)
        if record.status["state"] == "finished":
            say(f"finished before (rerun=true starts over): {record.directory}")
            made_by, here = record.status["commit"], source_commit()
            if made_by != here:
                say(f"its code was commit {made_by}, the code here is {here}")
            if not record.status.get("mirrored"):
                mirror.start()
                publish(record, mirror)
        else:
            with ending(record, mirror):
                WORK[config.mode](Work(config, record, mirror, skeleton, data, *length))
        status = record.status
    return Outcome(config, record.directory, status["result"], status.get("measured", {}))


def train(work: Work) -> None:
    """Train from the last checkpoint or from the start, then score."""
    from pvt_bench.training.checkpoint import delete_checkpoints

    training = Training(work.config, work.record, work.mirror, work.data, work.steps)
    torch.manual_seed(work.config.seed)
    network = build_and_report(work, work.data["train"].num_classes)
    module = training.fit(network, work.epoch_steps)
    row = measure_cost(work.skeleton, work.size).metrics() | score(work, module)
    finish(work, row | {"seconds": training.seconds}, work.steps, module.network)
    delete_checkpoints(training.checkpoints)


def test(work: Work) -> None:
    """Score the network in `weights`."""
    began = time.monotonic()
    view = work.data["val"]
    network = build_and_report(work, view.num_classes)
    scores = score(work, build_module(work.config, network, None, view))
    row = measure_cost(work.skeleton, work.size).metrics() | scores
    finish(work, row | {"seconds": time.monotonic() - began})


def cost(work: Work) -> None:
    """Parameters and GFLOPs of the published protocol."""
    measured = measure_cost(work.skeleton, work.size)
    if measured.uncounted:
        calls = ", ".join(f"{name} ({calls} calls)" for name, calls in measured.uncounted.items())
        warn(f"the GFLOPs leave out operators that the counter does not know: {calls}")
    row = measured.metrics()
    if work.config.cost.fvcore:
        network = build_network(work.config, work.config.task.protocol.num_classes)
        gflops, activations = measure_with_fvcore(network, work.size)
        row |= {"cost/fvcore_gflops": gflops, "cost/activations_m": activations}
    finish(work, row)


def speed(work: Work) -> None:
    """Latency, images per second and peak memory on this device."""
    options = work.config.speed
    network = build_network(work.config, work.config.task.protocol.num_classes)
    with progress_bar("timing", 2 * (options.warmup + options.repeats)) as bar:
        measured = measure_speed(
            network,
            tuple(options.size or work.size),
            device(work.config),
            getattr(torch, options.dtype),
            options.batch_size,
            options.warmup,
            options.repeats,
            options.seconds,
            advance=bar.advance,
        )
    work.record.update(measured=asdict(measured))
    finish(work, measured.metrics())


WORK = {Mode.train: train, Mode.test: test, Mode.cost: cost, Mode.speed: speed}


def build_and_report(work: Work, num_classes: int) -> nn.Module:
    """The network with the weights that the configuration names; what was loaded is printed."""
    network, report = build_loaded(work.config, num_classes)
    if report is not None:
        say(report)
    work.record.update(loaded=report)
    return network


def score(work: Work, module: Any) -> Row:
    """Score on the validation images; predictions and pictures go into the record."""
    from pvt_bench.datasets.loading import Share, eval_loader
    from pvt_bench.training.loop import validate

    view, config, directory = work.data["val"], work.config, work.record.directory
    batch_size = config.trainer.eval_batch_size
    with progress_bar("scoring", len(view)) as bar:
        share = Share(processes.rank(), processes.count())
        loader = eval_loader(view, batch_size, count_workers(config), share)
        validate(module, loader, config.trainer, directory, bar.advance)
    scores: Row = module.score(directory)
    return scores


def finish(work: Work, row: Row, step: int = 0, network: nn.Module | None = None) -> None:
    """Put the result, the environment and the weights into the record, and all into MLflow."""
    from pvt_bench.backbones.weights import save_weights

    record, directory = work.record, work.record.directory
    if network is not None:
        save_weights(network, directory / "weights.safetensors")
    used = environment() | {"device": describe_device(device(work.config))}
    (directory / "environment.json").write_text(json.dumps(used, indent=2))
    # A run that was killed right here has its row already; each step has a metric once.
    if not any(row.keys() <= point.values.keys() for point in record.points()):
        record.log(step, row)
    record.update(state="finished", result=row, step=step)
    publish(record, work.mirror)


def publish(record: Record, mirror: Mirror) -> None:
    """Send MLflow all of a finished record that it has not yet."""
    for name in ARTIFACTS:
        if (record.directory / name).exists():
            mirror.log_artifacts(record.directory / name)
    for folder in ("pictures", "predictions"):
        if (record.directory / folder).exists():
            mirror.log_artifacts(record.directory / folder, folder=folder)
    mirror.finish("finished")
    record.update(mirrored=not mirror.behind)


def open_mirror(config: DictConfig, record: Record, uri: str) -> Mirror:
    """The run in MLflow that mirrors a record."""
    tags = {
        "task": config.task.name,
        "model": config.model.name,
        "mode": str(config.mode),
        "dataset": config.dataset.name,
        "seed": config.seed,
        "identity": record.identity,
        "device": describe_device(device(config)),
        "torch": torch.__version__,
    }
    name, params = describing.run_name(config), describing.params(config)
    return Mirror(record, uri, describing.experiment(config), name, params, tags)


@contextmanager
def ending(record: Record, mirror: Mirror) -> Iterator[None]:
    """Begin the attempt; whatever ends it too early is told to the record and to MLflow."""
    record.begin()
    try:
        mirror.start()
        yield
    except BaseException as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        state = "interrupted" if stopped else "failed"
        record.update(state=state, error=str(error))
        mirror.finish(state)
        raise
