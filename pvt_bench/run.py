"""One run from top to bottom: check, open the record, work, show the row. Read this first.

Whatever can be found wrong with the input is found before the record is opened.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pvt_bench import names, outcome, processes, records
from pvt_bench.backbones.checks import SIZE_ERRORS
from pvt_bench.builders import (
    build_loaded,
    build_module,
    build_network,
    build_skeleton,
    check_device,
    check_images,
    count_workers,
    device,
    open_data,
)
from pvt_bench.config.checks import check
from pvt_bench.config.schema import Config, Mode
from pvt_bench.errors import InputError, Interrupted
from pvt_bench.measure.cost import measure_cost, measure_with_fvcore
from pvt_bench.measure.speed import describe_device, measure_speed
from pvt_bench.outcome import Outcome
from pvt_bench.processes import joined
from pvt_bench.screen import progress_bar, say, say_once, silence, warn
from pvt_bench.tracking.addresses import choose_uri
from pvt_bench.tracking.ending import ending
from pvt_bench.tracking.environment import environment, source_version
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.publishing import COSTS, DESCRIPTION, WEIGHTS, Presentation, main_metrics
from pvt_bench.tracking.record import Follower, Record
from pvt_bench.training.checkpoint import FOLDER, delete_checkpoints
from pvt_bench.training.fitting import Training
from pvt_bench.training.optim import count_steps

Row = dict[str, float]


@dataclass
class Work:
    """What a mode works with.

    skeleton: the network of the published protocol on the meta device; data: views by split.
    """

    config: Config
    record: Record
    mirror: Mirror
    skeleton: nn.Module
    data: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the published protocol."""
        height, width = self.config.task.protocol.size
        return height, width


@dataclass(frozen=True)
class Placing:
    """How a run is shown in MLflow beside others: its name, and tags such as its parent's."""

    name: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)


def run(config: Config, first_lines: str = "", placing: Placing = Placing()) -> Outcome:
    """Do what `config.mode` says, or give the result if it was done before.

    Every process of the run calls it; the first one keeps the record.

    Raises InputError for what the user can mend; Interrupted where asked to stop, after a
    checkpoint.
    """
    with joined():
        if processes.rank() > 0:
            silence()
        return _run(config, first_lines, placing)


def _run(config: Config, first_lines: str, placing: Placing) -> Outcome:
    uri = choose_uri(config.tracking.uri, config.results_dir)
    check(config)
    check_device(config)
    skeleton = build_skeleton(config)
    data: dict[str, Any] = {}
    if config.mode in (Mode.train, Mode.test):
        say_once(first_lines)
        data = open_data(config)
    check_images(config, skeleton, data)
    if config.mode == Mode.train:
        count_steps(config.schedule, len(data["train"]))  # refuses what gives no training
    with opened(config, data) as record:
        mirror = open_mirror(config, data, record, uri, placing)
        if record.status["state"] == "finished":
            tell_finished(record, mirror)
        else:
            with ending(record, mirror):
                WORK[config.mode](Work(config, record, mirror, skeleton, data))
        status = record.status
    return Outcome(config, record.directory, status["result"], status.get("measured", {}))


@contextmanager
def opened(config: Config, data: dict[str, Any]) -> Iterator[Record]:
    """The record of the run: the first process locks it, the others follow."""
    own: list[Record] = []

    def lead() -> Path:
        own.append(records.open_record(config, data))
        return own[0].directory

    directory = processes.first(lead)
    with own[0] if own else Follower(directory) as record:
        yield record


def tell_finished(record: Record, mirror: Mirror) -> None:
    """Say that the run was done before, and do what may have been left undone after its end."""
    say(f"finished before (rerun=true starts over): {record.directory}")
    made_by, here = record.status["commit"], source_version()
    if made_by != here:
        say(f"its code was commit {made_by}, the code here is {here}")
    delete_checkpoints(record.directory / FOLDER)
    if not is_mirrored(record):
        mirror.start()
        mirror.publish()


def is_mirrored(record: Record) -> bool:
    """Whether MLflow has the finished run, with its weights where it is to have them."""
    shown, status = Presentation.read(record.directory), record.status
    wanted = shown is not None and shown.weights
    return bool(status.get("mirrored")) and (not wanted or bool(status.get("mirrored_weights")))


def train(work: Work) -> None:
    """Train from the last checkpoint or from the start, then score."""
    from pvt_bench.backbones.weights import save_weights

    training = Training(work.config, work.record, work.mirror, work.data)
    torch.manual_seed(work.config.seed)
    network = build_and_report(work, work.data["train"].num_classes)
    module = training.fit(network)
    weights = work.record.directory / WEIGHTS
    if processes.rank() == 0:
        work.record.check_lease()
        save_weights(module.network, weights)
    try:
        row = measure_costs(work) | score(work, module)
    except Interrupted:
        raise
    except Exception:
        warn(f"the training is done: {weights}. The same command goes on with its score alone")
        raise
    if processes.rank() == 0:
        finish(work, row | {"seconds": training.seconds}, training.steps)


def test(work: Work) -> None:
    """Score the network in `weights`."""
    began = time.monotonic()
    view = work.data["val"]
    network = build_and_report(work, view.num_classes)
    scores = score(work, build_module(work.config, network, None, view))
    row = measure_costs(work) | scores
    if processes.rank() == 0:
        finish(work, row | {"seconds": time.monotonic() - began})


def measure_costs(work: Work) -> Row:
    """The cost of the published protocol, and that of the run's own network: with the classes of
    its data, at the size of its first test image. Without the latter where it cannot be counted."""
    row = measure_cost(work.skeleton, work.size).metrics()
    view = work.data["val"]
    height, width = view[0][0].shape[-2:]
    try:
        own = measure_cost(build_skeleton(work.config, view.num_classes), (height, width))
    except (*SIZE_ERRORS, InputError):
        return row
    work.record.update(measured={"num_classes": view.num_classes, "size": list(own.size)})
    return row | {"cost/own_params_m": own.params_m, "cost/own_gflops": own.gflops}


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
        size = options.size or work.size
        measured = measure_speed(network, size, device(work.config), options, bar.advance)
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
    """Score on the validation images; predictions and pictures go into the record.

    The first process has the scores, of the images of all.
    """
    from pvt_bench.datasets.loading import Share, eval_loader
    from pvt_bench.training.loop import validate

    view, config, directory = work.data["val"], work.config, work.record.directory
    batch_size = config.trainer.eval_batch_size
    share = Share(processes.rank(), processes.count())
    with progress_bar("scoring", len(view) // processes.count()) as bar:
        loader = eval_loader(view, batch_size, count_workers(config), share)
        validate(module, loader, config.trainer, directory, bar.advance)
    scores: Row = module.score(directory) if processes.rank() == 0 else {}
    return scores


def finish(work: Work, row: Row, step: int = 0) -> None:
    """Put the result and the environment into the record, and all into MLflow."""
    record, directory = work.record, work.record.directory
    used = environment() | {"device": describe_device(device(work.config))}
    record.check_lease()
    (directory / "environment.json").write_text(json.dumps(used, indent=2))
    if work.config.mode in (Mode.train, Mode.test):
        (directory / COSTS).write_text(outcome.costs_csv(row))
    # A run that was killed right here has its row already; each step has a metric once.
    if not any(row.keys() <= point.values.keys() for point in record.metrics.tail()):
        record.log(step, row)
    result = Outcome(work.config, directory, row, record.status.get("measured", {}))
    (directory / DESCRIPTION).write_text(outcome.description(result, used))
    record.update(state="finished", result=row, step=step)
    # Before MLflow is told: what fails there must not leave them to a run that never goes on.
    delete_checkpoints(directory / FOLDER)
    work.mirror.publish()


def open_mirror(
    config: Config, data: dict[str, Any], record: Record, uri: str, placing: Placing
) -> Mirror:
    """The run in MLflow that mirrors a record; only the first process has one."""
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
    shown = Presentation(
        names.experiment(config),
        placing.name or names.display_name(config),
        records.params(config),
        tags | placing.tags,
        records.datasets(config, data),
        config.tracking.weights,
        main_metrics(str(config.mode), list(config.task.headline)),
    )
    if processes.rank() > 0:
        return Mirror(record, None, shown)
    shown.write(record.directory)
    return Mirror(record, uri, shown)
