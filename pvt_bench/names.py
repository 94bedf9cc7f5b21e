"""What a run is called: in its directory, on the screen and in MLflow."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pvt_bench.config.baseline import compose_files, find_schedule, model_options, read_model
from pvt_bench.config.choices import default_choices
from pvt_bench.config.schema import Config, Mode, plain, select
from pvt_bench.identity import DIGESTED, SCORES, canonical, counts, flatten, read_keys, role

# Swept keys that have words of their own in a name.
NAMED = ("task", "model", "model.name", "seed")
# Characters of a name in MLflow: where it is longer, what was not swept is counted only.
LONGEST = 90


def experiment(config: Config) -> str:
    """The MLflow experiment: the task; costs and speeds have their own beside it."""
    part = f"/{config.mode}" if config.mode in (Mode.cost, Mode.speed) else ""
    return f"{config.task.name}{part}"


def run_name(config: Config) -> str:
    """The name of a run on the screen and in its folder: `pvt_small sr_ratios=[4,2,1,1] seed0`."""
    options = plain(config.model)
    words = [config.model.name, *_texts(_changed(options, read_model(config.model.name)))]
    return " ".join([*words, *_part(config)])


def display_name(config: Config, swept: Collection[str] = ()) -> str:
    """The name of a run in MLflow: `pvt_small lr=0.1 seed0 steps=30`.

    First what was swept, default or not, then what differs from the files that the run chooses.
    The store tells runs apart whose names are the same all the same.
    """
    words = [config.model.name, *swept_words(config, swept), *_choices(config, swept)]
    words += _part(config)
    others = [word for word in _texts(_differences(config)) if word not in words]
    kept = list(_fitting(others, LONGEST - len(" ".join(words))))
    left = len(others) - len(kept)
    return " ".join([*words, *kept, *([f"+{left}"] if left else [])])


def swept_words(config: Config, keys: Collection[str]) -> list[str]:
    """Each swept key with its value, default or not: `steps=30`."""
    # A swept recipe, for one, is no setting itself.
    groups = {each.name for each in fields(Config)}
    known = [key for key in keys if key not in NAMED and key.partition(".")[0] in groups]
    return _texts({key: _value(select(config, key)) for key in known})


def label(config: Config) -> str:
    """The record's folder for people: `<task>/<dataset>/<name>`."""
    where = config.mode if config.mode in (Mode.cost, Mode.speed) else config.dataset.name
    # Neither = nor commas: Hydra reads them when the path of a record is typed.
    name = re.sub(r"\W+", "_", run_name(config).replace("]", "")).replace("_seed", "-seed")
    return f"{config.task.name}/{where}/{name}"


def _part(config: Config) -> list[str]:
    return {Mode.train: [f"seed{config.seed}"], Mode.test: ["test"]}.get(config.mode, [])


def _choices(config: Config, swept: Collection[str]) -> Iterator[str]:
    """Dataset and schedule, where they are not those of a run that names neither."""
    if Mode(config.mode) not in SCORES:
        return
    dataset, schedule = config.dataset.name, find_schedule(config)
    if "dataset" not in swept and dataset != default_choices()["dataset"]:
        yield dataset
    if schedule and "schedule" not in swept and schedule != f"{config.task.name}_{dataset}":
        yield schedule.removeprefix(f"{config.task.name}_")


def _differences(config: Config) -> dict[str, Any]:
    """Settings that count for the run, where they are not those of the files that it chooses."""
    schedule = find_schedule(config)
    base = compose_files(config, schedule) if schedule else None
    if base is None:
        return _changed(plain(config.model), read_model(config.model.name))
    usual = {**dict(flatten(read_keys(base))), "model.weights": None}
    usual = {key: value for key, value in usual.items() if not key.startswith("model.")}
    usual |= dict(flatten({"model": {"weights": None, **model_options(config)}}))
    return {
        key: _value(value)
        for key, value in flatten(read_keys(config))
        if _counts(key, config) and canonical(value) != canonical(usual.get(key))
    }


def _counts(key: str, config: Config) -> bool:
    """Whether a setting can make another run, and has no word of its own in the name."""
    mode = Mode(config.mode)
    if key in NAMED or key.endswith(("_target_", ".name")):
        return False
    return mode in role(key).modes if key in DIGESTED else counts(key, mode)


def _changed(options: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a model that are not the usual ones."""
    left_out = ("_target_", "name", "weights")
    return {
        key: value
        for key, value in options.items()
        if key not in left_out and value != usual.get(key)
    }


def _value(value: Any) -> Any:
    """A setting as a name shows it: a file, or what was chosen of a group, by its name."""
    if isinstance(value, Mapping | DictConfig):
        return value.get("name")
    return Path(value).stem if isinstance(value, str) and "/" in value else value


def _texts(values: Mapping[str, Any]) -> list[str]:
    texts = (f"{key.rpartition('.')[2]}={value}" for key, value in values.items())
    return list(dict.fromkeys(text.replace(" ", "") for text in texts))


def _fitting(words: Collection[str], length: int) -> Iterator[str]:
    """The first words that take no more characters than that, with a space before each."""
    for word in words:
        length -= 1 + len(word)
        if length < 0:
            return
        yield word
