"""What the files that a run chooses say by themselves, without any key that is typed."""

from functools import cache
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pvt_bench.config.choices import names_of
from pvt_bench.config.command_line import compose_each
from pvt_bench.config.folders import config_dir
from pvt_bench.config.recipes import add_recipe, recipe_table
from pvt_bench.config.schema import Config, plain
from pvt_bench.errors import InputError


def find_schedule(config: Config) -> str | None:
    """Name of the file that the schedule of a configuration is from; None where it is not ours."""
    task = config.task.name
    usual = f"{task}_{config.dataset.name}"
    others = (name for name in names_of("schedule", []) if name.startswith(f"{task}_"))
    for name in dict.fromkeys([usual, *others]):
        found = compose_files(config, name)
        if found is not None and found.schedule.name == config.schedule.name:
            return name
    return None


def compose_files(config: Config, schedule: str) -> Config | None:
    """The configuration by the files of the same task, dataset, mode and recipe; the model is the
    default one. None where one of the files is not ours.

    schedule: name of its file.
    """
    task, dataset = config.task.name, config.dataset.name
    recipe = _recipe(config.model.name, task, dataset)
    return _compose(task, dataset, schedule, recipe, str(config.mode))


def model_options(config: Config) -> dict[str, Any]:
    """Options of the model by its file and its recipe; without its file, those of the recipe."""
    recipe = _recipe(config.model.name, config.task.name, config.dataset.name)
    settings = recipe_table()["settings"]
    options = dict(read_model(config.model.name))
    for name in recipe:
        options |= settings[name]["set"].get("model", {})
    return options


@cache
def read_model(name: str) -> dict[str, Any]:
    """Content of a model's file; empty where it is not ours."""
    path = config_dir() / "model" / f"{name}.yaml"
    loaded = OmegaConf.load(path) if path.exists() else None
    return plain(loaded) if isinstance(loaded, DictConfig) else {}


@cache
def _recipe(model: str, task: str, dataset: str) -> tuple[str, ...]:
    """Names of the settings that a run takes where no recipe is typed."""
    named = ("model=timm", f"model.name={model}", f"task={task}", f"dataset={dataset}")
    first = add_recipe(named)[0]
    return tuple(first[len("recipe=[") : -1].split(",")) if first.startswith("recipe=[") else ()


@cache
def _compose(
    task: str, dataset: str, schedule: str, recipe: tuple[str, ...], mode: str
) -> Config | None:
    words = [f"task={task}", f"dataset={dataset}", f"schedule={schedule}", f"mode={mode}"]
    words.append(f"recipe=[{','.join(recipe)}]" if recipe else "recipe=null")
    try:
        return compose_each([words])[0]
    # Of a package of the user's own the files are not known here.
    except (HydraException, OmegaConfBaseException, InputError):
        return None
