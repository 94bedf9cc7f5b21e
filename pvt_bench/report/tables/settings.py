"""What the cells of a published table are set to, so that no other run is taken for one of them.

Read from the files of `conf/` in Hydra's order, since composing takes Hydra half a second a cell.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from pvt_bench.config.choices import own_dataset
from pvt_bench.config.recipes import find_recipes
from pvt_bench.config.schema import Freeze, Schedule, config_dir, recipe_table, register
from pvt_bench.report.sources.runs import canonical, flatten

# The data that is used where none is typed.
BUILT_IN = "digits"
GROUPS = ("model", "task", "dataset", "schedule", "freeze")
_register = cache(register)


@cache
def settings(
    task: str, model: str, dataset: str, schedule: str | None, recipe_on: bool
) -> dict[str, str] | None:
    """What a cell is set to, by dotted key; None for an unknown model.

    schedule: its name, not its file's, by default the dataset's, also where no file has the name;
    recipe_on: with what the papers set when training on that data.
    """
    files = {
        "model": _choice("model", model),
        "task": _choice("task", task),
        "dataset": _choice("dataset", dataset),
        "schedule": _schedule(task, dataset, schedule) or _schedule(task, dataset, None),
    }
    columns = ["always", "on_own_data"] if recipe_on else ["always"]
    recipes = [recipe_table()["settings"][name] for name in find_recipes(task, model, columns)]
    if None in files.values():
        return None
    composed = {"schedule": asdict(Schedule()), "freeze": asdict(Freeze())}
    contents = [_content(group, path) for group, path in files.items() if path is not None]
    for content in [*contents, *(recipe["set"] for recipe in recipes)]:
        composed = _merged(composed, content)
    composed["dataset"] = _resolved(composed)
    groups = {group: composed[group] for group in GROUPS}
    return {key: canonical(str(value)) for key, value in flatten(groups)}


def has_schedule(task: str, name: str | None) -> bool:
    """Whether a file has the schedule of that name."""
    return _schedule(task, own_dataset(task, None), name) is not None


def schedule_name(task: str, file: str | None) -> str:
    """The name of the schedule in a file of `conf/schedule`, by default that of the own data."""
    path = _choice("schedule", file or f"{task}_{own_dataset(task, None)}")
    return _name(_content("schedule", path)) if path else ""


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, of which the second one counts where both have a value."""
    both = {key for key in below.keys() & above.keys() if isinstance(below[key], Mapping)}
    return {**below, **above, **{key: _merged(below[key], above[key]) for key in both}}


def _resolved(composed: Mapping[str, Any]) -> Any:
    """The dataset's settings, some of which are those of the schedule."""
    _register()  # has the resolver that they are written with
    parts = {"dataset": composed["dataset"], "schedule": composed["schedule"], "results_dir": ""}
    return OmegaConf.to_container(OmegaConf.create(parts).dataset, resolve=True)


def _choice(group: str, name: str) -> Path | None:
    path = config_dir() / group / f"{name}.yaml"
    return path if path.is_file() else None


def _schedule(task: str, dataset: str, name: str | None) -> Path | None:
    own = _choice("schedule", f"{task}_{dataset}")
    if name is None:
        return own
    paths = [*([own] if own else []), *sorted(config_dir().glob(f"schedule/{task}_*.yaml"))]
    return next((path for path in paths if _name(_content("schedule", path)) == name), None)


def _name(content: Mapping[str, Any]) -> str:
    return str(content["schedule"]["name"])


@cache
def _content(group: str, path: Path) -> dict[str, Any]:
    text = path.read_text()
    values = yaml.load(text, yaml.CSafeLoader)
    return values if text.startswith("# @package _global_") else {group: values}
