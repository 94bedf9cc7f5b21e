"""All that is known of a sweep before anything is queued: each cell checked, found, frozen."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict

from pvt_bench.builders import build_skeleton, check_device, open_data
from pvt_bench.config.checks import check
from pvt_bench.config.schema import Config, LauncherName, Mode, plain, select
from pvt_bench.errors import InputError
from pvt_bench.launching.cell import freeze
from pvt_bench.launching.executors import check_launcher
from pvt_bench.launching.jobs import Job, Launch, ask, job_key
from pvt_bench.launching.sweep import Cell
from pvt_bench.names import experiment, run_name
from pvt_bench.records import find_record, open_record
from pvt_bench.screen import progress_bar
from pvt_bench.tracking.lease import AlreadyRunning
from pvt_bench.tracking.record import Record
from pvt_bench.training.optim import count_steps

# Paths that a cell reads on another machine, perhaps in another working directory.
PATHS = ("results_dir", "dataset.root", "weights", "model.weights")


@dataclass(frozen=True)
class Planned:
    """A cell that can run: its configuration, the views that it reads, its names."""

    config: Config
    data: dict[str, Any]
    name: str
    mlflow_name: str


def plan(configs: Sequence[Config], swept: Sequence[str]) -> list[Planned]:
    """Check every cell; those that cannot run are named together.

    swept: the dotted keys that differ between the cells, for their names.

    Raises:
        InputError: the cells that cannot run, each with its reason.
    """
    planned: list[Planned] = []
    refused: dict[str, list[str]] = {}
    check_whole = _checker()
    with progress_bar("checking", len(configs)) as bar:
        for config in configs:
            name = cell_name(config, swept)
            try:
                data = check_whole(config)
                find_record(config, data)
                planned.append(Planned(config, data, name, mlflow_name(config, swept)))
            except InputError as error:
                refused.setdefault(str(error), []).append(name)
            bar.advance()
    if refused:
        raise InputError(_refusal(refused, len(configs)))
    return planned


def cell_name(config: Config, swept: Sequence[str]) -> str:
    """What tells the cell from the others of its sweep: `pvt_small sr_ratios=[4,2,1,1] seed0`."""
    words = [config.task.name] if "task" in swept else []
    words.append(config.model.name)
    for key in swept:
        if key not in ("task", "model", "seed"):
            value = select(config, key)
            words.append(f"{key.rpartition('.')[2]}={value}".replace(" ", ""))
    if config.mode == Mode.train:
        words.append(f"seed{config.seed}")
    return " ".join(words)


def mlflow_name(config: Config, swept: Sequence[str]) -> str:
    """What the run is by itself, with what was swept beside the model."""
    name = run_name(config)
    for key in swept:
        if key not in ("task", "model", "seed") and not key.startswith("model."):
            value = select(config, key)
            name += f" {key.rpartition('.')[2]}={str(value).replace(' ', '')}"
    return name


def claim(
    planned: Planned, sweep: str, launch: Launch, line: str, tags: dict[str, str]
) -> tuple[Cell, bool]:
    """The cell and whether it has to run, which then is frozen and marked as queued.

    A finished one does not, nor one that another process runs or that waits in a queue; the job of
    one that has failed may still be on its way out.
    """
    config = planned.config
    try:
        record = open_record(config, planned.data)
    except AlreadyRunning:
        return _cell(planned, find_record(config, planned.data)), False
    with record:
        cell = _cell(planned, record.directory)
        status = record.status
        if status["state"] == "finished" or _waits(status):
            return cell, False
        name_tags = tags | {"sweep": sweep}
        freeze(record.directory, plain(config), planned.mlflow_name, name_tags, line)
        record.update(state="queued", launch=launch, error=None)
    return cell, True


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


def _checker() -> Callable[[Config], dict[str, Any]]:
    """Check a cell and open its data; what cells have in common is looked at once."""

    @cache
    def launcher(key: str) -> InputError | None:
        return _error_of(lambda: check_launcher(seen[key]))

    @cache
    def skeleton(key: str) -> InputError | None:
        return _error_of(lambda: build_skeleton(seen[key]))

    @cache
    def data(key: str) -> dict[str, Any] | InputError:
        try:
            return open_data(seen[key])
        except InputError as error:
            return error

    seen: dict[str, Config] = {}

    def look(config: Config) -> dict[str, Any]:
        check(config)
        if config.launcher.name != LauncherName.slurm:
            check_device(config)
        values = plain(config)
        machines = json.dumps([values["launcher"], values["trainer"]], sort_keys=True)
        seen[machines] = config
        if error := launcher(machines):
            raise error
        network = json.dumps([values["model"], values["task"], values["freeze"]], sort_keys=True)
        seen[network] = config
        if error := skeleton(network):
            raise error
        if config.mode not in (Mode.train, Mode.test):
            return {}
        read = json.dumps([values["dataset"], values["task"], values["mode"]], sort_keys=True)
        seen[read] = config
        views = data(read)
        if isinstance(views, InputError):
            raise views
        if config.mode == Mode.train:
            count_steps(config.schedule, len(views["train"]))
        return views

    return look


def _error_of(action: Callable[[], Any]) -> InputError | None:
    try:
        action()
    except InputError as error:
        return error
    return None


def _refusal(refused: dict[str, list[str]], count: int) -> str:
    number = sum(map(len, refused.values()))
    lines = [f"{number} of {count} cells cannot run, and nothing was queued:"]
    for message, names in refused.items():
        lines += [f"  {', '.join(names)}:", f"    {message}"]
    return "\n".join(lines)


def _cell(planned: Planned, directory: Path) -> Cell:
    config = planned.config
    return Cell(
        planned.name,
        os.path.relpath(directory, Path(config.results_dir)),
        experiment(config),
        str(config.mode),
        list(config.task.headline),
    )
