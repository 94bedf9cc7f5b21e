"""All that is known of a sweep before anything is queued: each cell checked, found, frozen."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf, open_dict

from pvt_bench.builders import build_skeleton, check_device, check_images, open_data
from pvt_bench.config.checks import check
from pvt_bench.config.launchers import LauncherName
from pvt_bench.config.schema import Config, Mode, plain, select
from pvt_bench.errors import InputError
from pvt_bench.launching.cell import freeze
from pvt_bench.launching.jobs import Job, Launch, ask, job_key
from pvt_bench.launching.resources import count_gpus, visible_gpus
from pvt_bench.launching.submitting import check_slurm
from pvt_bench.launching.sweep import Cell, Sweep
from pvt_bench.names import display_name, experiment, swept_words
from pvt_bench.records import find_record, open_record
from pvt_bench.screen import progress_bar
from pvt_bench.tracking.lease import AlreadyRunning
from pvt_bench.tracking.parent import PARENT_TAG
from pvt_bench.tracking.publishing import source_tags
from pvt_bench.tracking.record import Record
from pvt_bench.training.optim import count_steps

# Paths that a cell reads on another machine, perhaps in another working directory.
PATHS = ("results_dir", "dataset.root", "weights", "model.weights")

Answer = TypeVar("Answer")
Views = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A cell that can run: its configuration, the views that it reads, its names, and the
    directory of its record, made or not."""

    config: Config
    data: Views
    name: str
    mlflow_name: str
    record: Path

    @property
    def cell(self) -> Cell:
        """The cell as its sweep lists it."""
        config = self.config
        place = os.path.relpath(self.record, config.results_dir)
        headline = list(config.task.headline)
        return Cell(self.name, place, experiment(config), str(config.mode), headline)


def plan(configs: Sequence[Config], swept: Sequence[str]) -> list[Planned]:
    """Check every cell; those that cannot run are named together.

    swept: the dotted keys that differ between the cells, for their names.

    Raises:
        InputError: the cells that cannot run, each with its reason.
    """
    planned: list[Planned] = []
    refused: dict[str, list[str]] = {}
    check_cell = _checker()
    with progress_bar("checking", len(configs)) as bar:
        for config in configs:
            name = cell_name(config, swept)
            try:
                data = check_cell(config)
                record = find_record(config, data)
                planned.append(Planned(config, data, name, display_name(config, swept), record))
            except InputError as error:
                refused.setdefault(str(error), []).append(name)
            bar.advance()
    if refused and len(configs) == 1:
        raise InputError(*refused)
    if refused:
        number = sum(map(len, refused.values()))
        lines = [f"{number} of {len(configs)} cells cannot run, and nothing was queued:"]
        for message, names in refused.items():
            lines += [f"  {', '.join(names)}:", f"    {message}"]
        raise InputError("\n".join(lines))
    return planned


def cell_name(config: Config, swept: Sequence[str]) -> str:
    """What tells the cell from the others of its sweep: `pvt_small sr_ratios=[4,2,1,1] seed0`."""
    words = [config.task.name] if "task" in swept else []
    words += [config.model.name, *swept_words(config, swept)]
    if config.mode == Mode.train:
        words.append(f"seed{config.seed}")
    return " ".join(words)


def claim(planned: Planned, sweep: Sweep, launch: Launch, line: str) -> bool:
    """Whether the cell has to run; then it is frozen and marked as queued.

    A finished one does not, nor one that another process runs or that waits in a queue; the job of
    one that has failed may still be on its way out.
    """
    config = planned.config
    parent = sweep.parents.get(experiment(config))
    tags = source_tags(sweep.typed) | {"sweep": sweep.name}
    tags |= {PARENT_TAG: parent} if parent else {}
    try:
        with open_record(config, planned.data) as record:
            if record.status["state"] == "finished" or _waits(record.status):
                return False
            freeze(record.directory, plain(config), planned.mlflow_name, tags, line)
            record.update(state="queued", launch=launch, error=None)
    except AlreadyRunning:
        return False
    return True


def _waits(status: Mapping[str, Any]) -> bool:
    if not (own := status.get("launch")):
        return False
    job = ask([own]).get(job_key(own), Job())
    return job.state == "PENDING" or (job.alive and status["state"] != "failed")


def note_launches(directories: Iterable[Path], launches: Iterable[Launch]) -> None:
    """Note in each record which job runs it, now that there is one."""
    for directory, launch in zip(directories, launches, strict=True):
        # A job that has started already has the record, and notes the same itself.
        with suppress(AlreadyRunning), Record.reopen(directory) as record:
            record.update(launch=launch)


def make_absolute(config: Config) -> Config:
    """Paths as every machine and working directory understand them, before they are resolved."""
    node: Any = config
    with open_dict(node):
        for key in PATHS:
            value = select(config, key)
            if value is not None and value != "imagenet" and "://" not in str(value):
                OmegaConf.update(node, key, str(Path(value).expanduser().absolute()))
    return config


def _checker() -> Callable[[Config], Views]:
    """Check a cell and open its data; what cells have in common is looked at once."""
    answers: dict[str, Any] = {}

    def once(action: Callable[[Config], Answer], config: Config, *keys: str) -> Answer:
        """Result or error of an action that depends on these keys alone."""
        values = plain(config)
        read = json.dumps([action.__name__, *(values[key] for key in keys)], sort_keys=True)
        if read not in answers:
            try:
                answers[read] = action(config)
            except InputError as error:
                answers[read] = error
        answer = answers[read]
        if isinstance(answer, InputError):
            raise answer
        result: Answer = answer
        return result

    def check_cell(config: Config) -> Views:
        check(config)
        if config.launcher.name != LauncherName.slurm:
            check_device(config)
        once(_check_launcher, config, "launcher", "trainer")
        skeleton = once(build_skeleton, config, "model", "task", "freeze")
        views: Views = {}
        if config.mode in (Mode.train, Mode.test):
            views = once(open_data, config, "dataset", "task", "mode")

        def check_size(config: Config) -> None:
            check_images(config, skeleton, views)

        once(check_size, config, "model", "task", "freeze", "dataset", "mode", "speed")
        if config.mode == Mode.train:
            count_steps(config.schedule, len(views["train"]))
        return views

    return check_cell


def _check_launcher(config: Config) -> None:
    launcher = config.launcher
    if launcher.name == LauncherName.slurm:
        check_slurm(config)
    if launcher.name == LauncherName.local:
        wanted, here = count_gpus(config), visible_gpus(config)
        if wanted * launcher.jobs > len(here):
            raise InputError(
                f"launcher.jobs={launcher.jobs} cells at once with {wanted} GPUs each need "
                f"{wanted * launcher.jobs}, and this machine has {len(here)}. Use "
                f"launcher.jobs={max(1, len(here) // wanted)}, or fewer trainer.devices."
            )
