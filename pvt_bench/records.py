"""From a configuration and its data to the record of the run.

Records whose identity is of version 1 are found by their own configuration and go on in their own
directories. Two older changes keep results apart: fingerprints of data cover the content of images
since, and a task whose network changed has a `revision`.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from pvt_bench.backbones import default_options
from pvt_bench.builders import device
from pvt_bench.config.places import find_file
from pvt_bench.config.schema import Config, Mode, OldRecords, plain
from pvt_bench.config.targets import find_target, signature_defaults
from pvt_bench.errors import InputError
from pvt_bench.identity import first_identity, flatten, identity, of_other_view, read_keys
from pvt_bench.measure.speed import describe_device
from pvt_bench.names import label
from pvt_bench.screen import say_once
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.reading import (
    DAMAGED,
    find_directory,
    find_labelled,
    read_config,
    read_status,
)
from pvt_bench.tracking.record import Record

Digests = dict[str, str]
Keys = dict[str, Any]
CONTEXTS = {"train": "training", "val": "evaluation"}


@dataclass(frozen=True)
class Wanted:
    """What a command means: its settings, digests of what they name, defaults of the code."""

    results_dir: str
    label: str
    keys: Keys
    content: Digests
    defaults: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """The identity of the run."""
        return identity(self.keys, self.content, self.defaults)


def open_record(config: Config, data: Mapping[str, Any]) -> Record:
    """Open the record of a configuration and of the views that it reads; see `Record.open`.

    Raises:
        InputError: another process has it open, or there is one of an older version, and only the
            user can tell whether it is of this data.
    """
    wanted = describe(config, data)
    old = find_old(wanted, config, data)
    key = old.name.rpartition("-")[2] if old else wanted.identity
    record = Record.open(wanted.keys, config.results_dir, wanted.label, key, config.rerun)
    if old and record.status.get("identity") != wanted.identity:
        record.update(identity=wanted.identity, content=wanted.content)
        Presentation.set_datasets(record.directory, datasets(config, data))
    return record


def find_record(config: Config, data: Mapping[str, Any]) -> Path:
    """The directory of the record that `open_record` would open, or make."""
    wanted = describe(config, data)
    old = find_old(wanted, config, data)
    return old or find_directory(config.results_dir, wanted.label, wanted.identity)


def describe(config: Config, data: Mapping[str, Any]) -> Wanted:
    """What a configuration and the views that it reads mean."""
    keys, content = read_keys(config), digests(config, data)
    return Wanted(config.results_dir, label(config), keys, content, code_defaults(config))


def params(config: Config) -> dict[str, Any]:
    """The settings that a run reads, by dotted key, for MLflow."""
    leaves, view = flatten(read_keys(config)), config.task.view
    return {key: value for key, value in leaves if not of_other_view(key, view)}


def datasets(config: Config, data: Mapping[str, Any]) -> list[dict[str, str]]:
    """The data of a run, for MLflow's inputs."""
    return [
        {
            "name": f"{config.dataset.name} {split}",
            "digest": view.fingerprint[:36],
            "source": str(config.dataset.root),
            "context": CONTEXTS[split],
        }
        for split, view in data.items()
    ]


def digests(config: Config, data: Mapping[str, Any]) -> Digests:
    """Digests of what the configuration names by path, and of the device where it counts."""
    found = {f"dataset.{split}": view.fingerprint for split, view in data.items()}
    kept = read_keys(config)
    sources = {"weights": kept.get("weights"), "model.weights": kept["model"]["weights"]}
    for key, source in sources.items():
        if source is not None:
            found[key] = source if source == "imagenet" else _file_digest(key, source)
    if config.mode == Mode.speed:
        found["device"] = describe_device(device(config))
    return found


def code_defaults(config: Config) -> dict[str, Any]:
    """The defaults of settings by dotted key: of dataclasses, and of what is built from them."""
    found = dict(_schema_defaults())
    task, model = config.task, plain(config.model)
    nodes = {"dataset": config.dataset, "task.network": task.network, "task.module": task.module}
    if "_target_" in model:
        nodes["model"] = model
    else:
        options = default_options(model["name"], model.get("base"))
        found |= {f"model.{name}": value for name, value in options.items()}
    for prefix, node in nodes.items():
        options = signature_defaults(find_target(prefix, node.get("_target_")))
        found |= {f"{prefix}.{name}": value for name, value in options.items()}
    return found


def find_old(wanted: Wanted, config: Config, data: Mapping[str, Any]) -> Path | None:
    """The record of an older version that is this run's; None where it has its own, or none.

    Where the fingerprints in it cover names and sizes of the images alone it is taken over, and
    where they cover no image only if `old_records=keep` says that it is of these.

    Raises:
        InputError: there is such a record, and the user has not said.
    """
    if find_directory(wanted.results_dir, wanted.label, wanted.identity).exists():
        return None
    found = _taken_over(wanted) or _first_version(wanted, wanted.keys, wanted.content)
    former = wanted.content | {
        f"dataset.{split}": view.former_fingerprint
        for split, view in data.items()
        if view.former_fingerprint is not None
    }
    if found or config.rerun or former == wanted.content:
        return found
    _tell_of_other_revision(wanted, former)
    found = _first_version(wanted, wanted.keys, former)
    covered = all(view.former_covers_images for view in data.values())
    return found if found and _is_of_this_data(found, covered, config.old_records) else None


def _taken_over(wanted: Wanted) -> Path | None:
    """The record in a directory of another identity that was opened as this run before."""
    for directory in find_labelled(wanted.results_dir, wanted.label):
        with suppress(InputError):  # a damaged one is told of by its own run
            if read_status(directory).get("identity") == wanted.identity:
                return directory
    return None


def _first_version(wanted: Wanted, keys: Keys, content: Digests) -> Path | None:
    """The record of version 1 that was made with these settings and digests."""
    sought = identity(keys, content, wanted.defaults)
    for directory in find_labelled(wanted.results_dir, wanted.label):
        with suppress(*DAMAGED):
            own = read_config(directory)
            named = directory.name.endswith(f"-{first_identity(own, content)}")
            if named and identity(own, content, wanted.defaults) == sought:
                return directory
    return None


def _is_of_this_data(found: Path, covered: bool, answer: OldRecords) -> bool:
    """Whether a record with fingerprints of another kind is taken over."""
    status = read_status(found)
    if "content" in status:  # taken over before, for other images
        return False
    if covered:
        say_once(f"taken over, since names and sizes of its images are those of today: {found}")
    elif answer == OldRecords.ask:
        raise InputError(
            f"There is an older record of this command ({status['state']}): {found}. When it was "
            "made, the annotation files alone were compared, so it may be of other images. Use "
            "old_records=keep if its images were those of today: it is taken over as it is. Use "
            "old_records=ignore to leave it as it is and to start a new run."
        )
    elif answer == OldRecords.ignore:
        say_once(f"an older record of this command is left as it is (old_records=ignore): {found}")
        return False
    else:
        say_once(f"taken over (old_records=keep): {found}")
    return True


def _tell_of_other_revision(wanted: Wanted, former: Digests) -> None:
    """Say where the record of an older revision of the task lies, which is another run."""
    if "revision" not in wanted.keys["task"]:
        return
    task = {key: value for key, value in wanted.keys["task"].items() if key != "revision"}
    found = _first_version(wanted, wanted.keys | {"task": task}, former)
    if found is not None:
        say_once(
            f"an older record of this command was made before task={task['name']} became what it "
            f"is now (docs/exactness.md); it is left as it is, and this is a new run: {found}"
        )


@cache
def _schema_defaults() -> tuple[tuple[str, Any], ...]:
    leaves = flatten(plain(OmegaConf.structured(Config)))
    return tuple((key, value) for key, value in leaves if value != MISSING)


def _file_digest(key: str, source: str) -> str:
    with find_file(key, source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
