"""What a run is called, what makes it itself, and how its row is shown."""

import hashlib
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pvt_bench.builders import device, plain
from pvt_bench.config.schema import Mode, config_dir
from pvt_bench.errors import InputError
from pvt_bench.escaping import markdown
from pvt_bench.measure.speed import describe_device
from pvt_bench.old_records import find_taken_over
from pvt_bench.screen import say, show_row, show_rows
from pvt_bench.tracking.identity import identity
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.record import Record, find_directory

PARTS = ("backbone", "neck", "head")

# The keys that each mode reads; the others take no part in what makes two runs the same.
COST_KEYS = ("mode", "model", "task", "freeze")
KEYS = {
    Mode.cost: (*COST_KEYS, "cost"),
    Mode.speed: (*COST_KEYS, "speed", "trainer"),
    Mode.train: (*COST_KEYS, "dataset", "schedule", "trainer", "seed", "weights"),
    Mode.test: (*COST_KEYS, "dataset", "trainer", "weights"),
}
# A backbone's weights change neither cost nor speed, and a whole network's replace them.
WITHOUT_MODEL_WEIGHTS = (Mode.cost, Mode.speed, Mode.test)
# A task's revision counts changes of what is learnt and found, not of what is computed.
WITHOUT_REVISION = (Mode.cost, Mode.speed)


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    row: metrics by name, scores as fractions; conditions: of a measurement of speed, or the
        classes and the size of the test images, at which a run's own network was counted.
    """

    config: DictConfig
    directory: Path
    row: dict[str, float]
    conditions: dict[str, Any]


def read_keys(config: DictConfig) -> dict[str, Any]:
    """The part of the configuration that the run's mode reads, plain and resolved."""
    everything = plain(config)
    kept = {key: everything[key] for key in KEYS[config.mode]}
    if config.mode in WITHOUT_MODEL_WEIGHTS:
        kept["model"] = {**kept["model"], "weights": None}
    if config.mode in WITHOUT_REVISION:
        kept["task"] = {key: each for key, each in kept["task"].items() if key != "revision"}
    return kept


def digests(config: DictConfig, data: dict[str, Any]) -> dict[str, str]:
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


def open_record(config: DictConfig, data: dict[str, Any]) -> Record:
    """The record of a configuration and of the views that it reads, locked; see `Record.open`."""
    keys, content, name = read_keys(config), digests(config, data), label(config)
    taken_over = find_taken_over(config, keys, content, name, data)
    record = Record.open(keys, config.results_dir, name, taken_over or content, config.rerun)
    if taken_over and "content" not in record.status:
        record.update(content=content)
        Presentation.set_datasets(record.directory, datasets(config, data))
    return record


def find_record(config: DictConfig, data: dict[str, Any]) -> Path:
    """The directory of the record that `open_record` would open, or make."""
    keys, content, name = read_keys(config), digests(config, data), label(config)
    taken_over = find_taken_over(config, keys, content, name, data)
    return find_directory(config.results_dir, name, identity(keys, taken_over or content))


def experiment(config: DictConfig) -> str:
    """The MLflow experiment: the task; costs and speeds have their own beside it."""
    part = f"/{config.mode}" if config.mode in (Mode.cost, Mode.speed) else ""
    return f"{config.task.name}{part}"


def run_name(config: DictConfig) -> str:
    """What a run is, for people: `pvt_small sr_ratios=[4,2,1,1] seed0`."""
    words = [config.model.name, *_differences(config)]
    words += {Mode.train: [f"seed{config.seed}"], Mode.test: ["test"]}.get(config.mode, [])
    return " ".join(words)


def label(config: DictConfig) -> str:
    """The record's folder for people: `<task>/<dataset>/<name>`."""
    where = config.mode if config.mode in (Mode.cost, Mode.speed) else config.dataset.name
    # Neither = nor commas: Hydra reads them when the path of a record is typed.
    name = re.sub(r"\W+", "_", run_name(config).replace("]", "")).replace("_seed", "-seed")
    return f"{config.task.name}/{where}/{name}"


def params(config: DictConfig) -> dict[str, Any]:
    """What the run was set to, by dotted key, for MLflow."""
    return dict(_flatten(read_keys(config)))


def datasets(config: DictConfig, data: dict[str, Any]) -> list[dict[str, str]]:
    """What the run reads, for MLflow's inputs."""
    context = {"train": "training", "val": "evaluation"}
    return [
        {
            "name": f"{config.dataset.name} {split}",
            "digest": view.fingerprint[:36],
            "source": str(config.dataset.root),
            "context": context[split],
        }
        for split, view in data.items()
    ]


def description(outcome: Outcome, used: dict[str, Any]) -> str:
    """What the run was, with what, and its row, in Markdown.

    used: what `tracking.environment.environment` gives, with the device.
    """
    config = outcome.config
    figures = _headline(config, outcome.row)
    lengths = {"epochs": config.schedule.epochs, "steps": config.schedule.steps}
    length = next((f"{value} {unit}" for unit, value in lengths.items() if value is not None), "")
    facts = {
        "task": f"{config.task.name}, mode {config.mode}",
        "dataset": config.dataset.name,
        "schedule": f"{config.schedule.name}: {length}, batches of {config.schedule.batch_size}",
        "device": used["device"],
        "versions": f"torch {used['packages']['torch']}, Python {used['python']}",
        "commit": f"{used['commit']}{' with changes' if used['dirty'] else ''}",
        "record": str(outcome.directory),
    }
    if config.mode in (Mode.cost, Mode.speed):
        del facts["dataset"], facts["schedule"]
    if own := _own_cost(outcome):
        facts["own network"] = own
    shown = ("–" if math.isnan(value) else f"{value:.1f}" for value in figures.values())
    heads, values = " | ".join(figures), " | ".join(shown)
    rule = " | ".join(["---:"] * len(figures))
    lines = [f"- **{key}**: {markdown(value)}" for key, value in facts.items()]
    # The row comes first: the page folds the rest away.
    return "\n".join([f"| {heads} |", f"| {rule} |", f"| {values} |", "", *lines, ""])


def show(outcome: Outcome, as_line: bool = False) -> None:
    """Print where the record is and the row, scores in hundredths, as the papers print them.

    as_line: of one cell of many, its name and its main figures.
    """
    config, row = outcome.config, outcome.row
    if as_line:
        figures = "  ".join(f"{name} {value:.1f}" for name, value in _headline(config, row).items())
        say(f"{run_name(config)}: {figures}")
        return
    say(f"record: {outcome.directory}")
    if config.mode == Mode.speed:
        _show_speed(outcome)
        return
    height, width = config.task.protocol.size
    note = (
        f"Params: millions, trainable. GFLOPs: multiply-adds counted once, at {height} x {width} "
        f"pixels with {config.task.protocol.num_classes} classes."
    )
    if config.mode == Mode.cost:
        show_rows(f"{config.task.name}, cost of {run_name(config)}", *_cost_table(row), note)
        return
    shown: dict[str, str | float | None] = {"model": run_name(config)}
    shown |= {"dataset": config.dataset.name, **_headline(config, row)}
    notes = [note, f"This run's own network, {own}."] if (own := _own_cost(outcome)) else [note]
    show_row(f"{config.task.name}", {**shown, "seconds": row["seconds"]}, "\n".join(notes))


def _headline(config: DictConfig, row: dict[str, float]) -> dict[str, float]:
    if config.mode == Mode.speed:
        return {name.removeprefix("speed/"): value for name, value in row.items()}
    figures = {"params": row["cost/params_m"], "GFLOPs": row["cost/gflops"]}
    if config.mode == Mode.cost:
        return figures
    return figures | {name: 100 * row[f"val/{name}"] for name in config.task.headline}


def _own_cost(outcome: Outcome) -> str:
    """What the run's own network costs, in words; empty where that was not counted."""
    row, conditions = outcome.row, outcome.conditions
    if "cost/own_gflops" not in row or "num_classes" not in conditions:
        return ""
    height, width = conditions["size"]
    params, gflops = (
        f"{value:.1f}" if value >= 1 else f"{value:.2g}"
        for value in (row["cost/own_params_m"], row["cost/own_gflops"])
    )
    where = f"{conditions['num_classes']} classes at {height} x {width} pixels"
    return f"{where}: {params} M, {gflops} GFLOPs"


def _show_speed(outcome: Outcome) -> None:
    config, row = outcome.config, outcome.row
    height, width = config.speed.size or config.task.protocol.size
    note = (
        f"{height} x {width} pixels; median latency at batch 1 and its interquartile range; "
        "images/s at batch {batch_size}; {dtype} on {device}, {threads} threads, torch {torch}"
    )
    shown: dict[str, str | float | None] = {"model": run_name(config), **_headline(config, row)}
    show_row(f"{config.task.name}, speed", shown, note.format(**outcome.conditions))


def _cost_table(row: dict[str, float]) -> tuple[list[str], list[list[str | float | None]]]:
    columns = ["", "params", "all params", "GFLOPs"]
    names = ("params_m", "params_all_m", "gflops")
    rows: list[list[str | float | None]] = [
        [part, *(row[f"cost/{part}_{name}"] for name in names)]
        for part in PARTS
        if f"cost/{part}_gflops" in row
    ]
    rows.append(["total", *(row[f"cost/{name}"] for name in names)])
    if "cost/fvcore_gflops" in row:
        columns += ["GFLOPs by fvcore", "activations"]
        rows = [[*cells, None, None] for cells in rows]
        rows[-1][-2:] = [row["cost/fvcore_gflops"], row["cost/activations_m"]]
    return columns, rows


def _differences(config: DictConfig) -> list[str]:
    """What differs from the model's own YAML, as `key=value`."""
    own = _model_file(config.model.name)
    return [
        f"{key}={value}".replace(" ", "")
        for key, value in plain(config.model).items()
        if key not in ("name", "weights") and value != own.get(key)
    ]


@cache
def _model_file(name: str) -> dict[str, Any]:
    path = config_dir() / "model" / f"{name}.yaml"
    return plain(OmegaConf.load(path)) if path.exists() else {}  # type: ignore[arg-type]


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat.extend(_flatten(value, f"{name}.") if isinstance(value, dict) else [(name, value)])
    return flat


def _file_digest(key: str, source: str) -> str:
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"{key}={source}: there is no such file. Type {key}=PATH of a file.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
