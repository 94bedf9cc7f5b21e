"""What a run is called: in its directory, on the screen and in MLflow."""

import re
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pvt_bench.config.folders import config_dir
from pvt_bench.config.schema import Config, Mode, plain


def experiment(config: Config) -> str:
    """The MLflow experiment: the task; costs and speeds have their own beside it."""
    part = f"/{config.mode}" if config.mode in (Mode.cost, Mode.speed) else ""
    return f"{config.task.name}{part}"


def run_name(config: Config) -> str:
    """The name of a run for people: `pvt_small sr_ratios=[4,2,1,1] seed0`."""
    words = [config.model.name, *_changes(config)]
    words += {Mode.train: [f"seed{config.seed}"], Mode.test: ["test"]}.get(config.mode, [])
    return " ".join(words)


def label(config: Config) -> str:
    """The record's folder for people: `<task>/<dataset>/<name>`."""
    where = config.mode if config.mode in (Mode.cost, Mode.speed) else config.dataset.name
    # Neither = nor commas: Hydra reads them when the path of a record is typed.
    name = re.sub(r"\W+", "_", run_name(config).replace("]", "")).replace("_seed", "-seed")
    return f"{config.task.name}/{where}/{name}"


def _changes(config: Config) -> list[str]:
    """The options of the model that are not those of its YAML, as `key=value`."""
    own = _model_file(config.model.name)
    return [
        f"{key}={value}".replace(" ", "")
        for key, value in plain(config.model).items()
        if key not in ("_target_", "name", "weights") and value != own.get(key)
    ]


@cache
def _model_file(name: str) -> dict[str, Any]:
    path = config_dir() / "model" / f"{name}.yaml"
    loaded = OmegaConf.load(path) if path.exists() else None
    return plain(loaded) if isinstance(loaded, DictConfig) else {}
