"""Recipes: what the papers set for one model in one task, by the rules of `conf/recipes.yaml`."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml

from pvt_bench.config.choices import chosen, default_choices, own_dataset, read_choice
from pvt_bench.config.folders import config_dir
from pvt_bench.config.schema import Config, select

# Words that leave out the settings of one column of the table.
LEFT_OUT = {"~recipe": "always", "~recipe_on": "on_own_data"}


@cache
def recipe_table() -> dict[str, Any]:
    """Content of `conf/recipes.yaml`."""
    table: dict[str, Any] = yaml.safe_load((config_dir() / "recipes.yaml").read_text())
    return table


def find_recipes(task: str, model: str, columns: Sequence[str]) -> list[str]:
    """Names of the settings for a model in a task; of two that set a key the later one counts.

    columns: of the table, `always` and `on_own_data`.
    """
    network = model.partition(".")[0]  # timm names weights after a dot.
    rules = recipe_table()["rules"]
    rules = [rule for rule in rules if task in rule["tasks"] and network in rule["models"]]
    return [rule[column] for column in columns for rule in rules if column in rule]


def add_recipe(words: Sequence[str]) -> list[str]:
    """The words of one run with the recipe of its model, task and dataset, unless one is typed."""
    left = [word for word in words if word.partition("=")[0] not in LEFT_OUT]
    choices = chosen(left)
    if "recipe" in choices:
        return [word for word in left if word != "recipe=null"]  # Hydra takes no null here.
    choices = {**default_choices(), **choices}
    task = choices["task"]
    model = choices.get("model.name") or read_choice("model", choices["model"], left).get("name")
    own = own_dataset(task, read_choice("task", task, left).get("dataset"))
    names = find_recipes(task, model or "", _columns(words, choices["dataset"] == own))
    return [f"recipe=[{','.join(names)}]", *left] if names else left


def why_recipe(config: Config, words: Sequence[str]) -> str:
    """The second line of a training: which recipe it uses, and how to train without.

    words: as they are typed, with the values of all cells of a sweep.
    """
    if typed := chosen(words).get("recipe"):
        return f"recipe: {typed.replace('null', 'none')} (as typed)"
    task, model = config.task.name, config.model.name
    own = config.dataset.name == own_dataset(task, select(config, "task.dataset"))
    names = find_recipes(task, model, _columns(words, own))
    if not names:
        left = [word for word in words if word in LEFT_OUT]
        why = f"{' '.join(left)} is typed" if left else f"none is published for {model} in {task}"
        return f"recipe: none ({why})"
    what = "; ".join(recipe_table()["settings"][name]["what"] for name in names)
    return f"recipe: {what} ({', '.join(names)}; recipe=null trains without)"


def _columns(words: Sequence[str], own_data: bool) -> list[str]:
    typed = {word.partition("=")[0] for word in words}
    columns = [column for word, column in LEFT_OUT.items() if word not in typed]
    return columns if own_data else [each for each in columns if each != "on_own_data"]
