"""What a command line is taken to mean."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException

from pvt_bench.config.choices import (
    SEARCHPATH,
    chosen,
    experiment,
    names_of,
    own_dataset,
    read_choice,
    typed_experiment,
)
from pvt_bench.config.folders import config_dir
from pvt_bench.config.keys import check_fields, check_words
from pvt_bench.config.messages import how_to_type, quote
from pvt_bench.config.recipes import add_recipe, why_recipe
from pvt_bench.config.registry import register
from pvt_bench.config.schema import Config, Mode, typed
from pvt_bench.errors import InputError, nearest
from pvt_bench.processes import spread
from pvt_bench.screen import progress_bar

# From so many cells on, processes that compose are worth their start; each takes some at a time.
MANY, CHUNK = 24, 8
EXAMPLE = "model=pvt_small task=coco_retinanet"
# So many choices stand in a message.
FEW = 12
MULTIRUN = ("-m", "--multirun")
# What is answered without running anything.
QUESTIONS = (
    *("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info"),
    *("-sc", "--shell-completion"),
)
OPTIONS = (*QUESTIONS, *MULTIRUN)


class Composed(NamedTuple):
    """One run of a command line, and the overrides that make it."""

    config: Config
    overrides: list[str]


def compose_cells(arguments: Sequence[str]) -> list[Composed]:
    """The runs that a command line means: one, or with -m, table= or sweep= all combinations of
    what is swept. Where PVT_BENCH_DATA is set and no dataset is typed, each takes its task's own.

    Composed here and not by Hydra's own sweeper, which composes each of them twice.

    Raises:
        InputError, or an error of Hydra or OmegaConf: the command line means nothing.
    """
    words = [word for word in arguments if word not in MULTIRUN]
    check_words(words)
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cells = _combine(words)
        if len(cells) > 1 and len(words) == len(arguments) and not typed_experiment(words):
            raise InputError(_one_or_several(words, cells))
        configs = _compose_all([complete(cell, os.environ) for cell in cells])
        return [Composed(*each) for each in zip(configs, cells, strict=True)]


def split_cells(words: Sequence[str]) -> list[list[str]]:
    """Words of each cell of a sweep, without composing any."""
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return _combine(words)


def compose_each(cells: Sequence[Sequence[str]]) -> list[Config]:
    """Configurations of cells by their words, with the recipes that their runs would take."""
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return list(_compose_all([add_recipe(cell) for cell in cells]))


def compose_data(arguments: Sequence[str]) -> Config:
    """The configuration of the one task and dataset that a command line means, whatever else is
    swept.

    Raises:
        InputError, or an error of Hydra or OmegaConf: several of them, or the words mean nothing.
    """
    check_words(arguments)
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cells = [complete(cell, os.environ) for cell in _combine(arguments)]
        for group in ("task", "dataset"):
            named = {word: None for cell in cells for word in cell if word.startswith(f"{group}=")}
            if len(named) > 1:
                raise InputError(f"One {group} at a time: use one of {', '.join(named)}.")
        return _compose(cells[0])


def complete(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The words of one run with what follows from them: the dataset and the recipe of its task."""
    return add_recipe(add_dataset(words, environment))


def add_dataset(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The words of one run with its task's dataset, where PVT_BENCH_DATA is set and none chosen."""
    return on_own_data(words) if environment.get("PVT_BENCH_DATA") else list(words)


def on_own_data(words: Sequence[str]) -> list[str]:
    """The words of one run with the dataset that its task was published for, if none is chosen."""
    choices = chosen(words)
    task = choices.get("task", ",")
    if "dataset" in choices or "," in task:
        return list(words)
    own = own_dataset(task, read_choice("task", task, words).get("dataset"))
    return [f"dataset={own}", *words]


def swept_keys(overrides: Sequence[Sequence[str]]) -> list[str]:
    """The keys whose values differ between the cells of a sweep, by the cells' overrides."""
    cells = [dict(word.split("=", 1) for word in words if "=" in word) for words in overrides]
    keys = dict.fromkeys(key for cell in cells for key in cell)
    return [key.lstrip("+") for key in keys if len({cell.get(key) for cell in cells}) > 1]


def sweep_title(arguments: Sequence[str], swept: Sequence[str]) -> str:
    """What a sweep is called: by its experiment's file, or by what was swept."""
    _, name = typed_experiment(arguments) or ("", "")
    return name or "-".join(key.rpartition(".")[2] for key in swept) or "run"


def check_named(
    words: Sequence[str],
    groups: Sequence[str] = ("model", "task"),
    command: str = "pvt_bench",
    example: str = EXAMPLE,
) -> None:
    """Refuse a command that does not name its model or its task.

    example: words of one that does.
    """
    if typed_experiment(words):
        return
    for group in groups:
        if not any(word.startswith(f"{group}=") for word in words):
            raise InputError(
                f"Which {group}? Run for example python -m {command} {example}\n"
                f"{_where_listed(group, words)} --help explains the command."
            )


def _where_listed(group: str, words: Sequence[str]) -> str:
    """A sentence with the choices of a group, or with the command that lists them if many."""
    names = names_of(group, words)
    if len(names) <= FEW:
        return f"{group} is one of: {', '.join(names)}."
    searched = [word for word in words if word.lstrip("+").startswith(f"{SEARCHPATH}=")]
    command = shlex.join(["python", "-m", "pvt_bench", "--help", group, *searched])
    return f"{command} lists the {len(names)} choices of {group}."


def asks_hydra(arguments: Sequence[str]) -> bool:
    """Whether the command only asks for what Hydra answers, such as --help or --cfg job.

    Raises:
        InputError: an unknown option.
    """
    options = [word.partition("=")[0] for word in arguments if word.startswith("-")]
    if any(option in QUESTIONS for option in options):
        return True
    for option in options:
        if option not in MULTIRUN:
            raise InputError(
                f"Unknown option {option}. {nearest(option, OPTIONS)} --help explains the command."
            )
    return False


def first_lines(config: Config, typed: Sequence[str]) -> str:
    """What a run prints first: its dataset, and the recipe that it trains by, with the reasons."""
    dataset = why_dataset(config.dataset.name, config.dataset.root, typed)
    return f"{dataset}\n{why_recipe(config, typed)}" if config.mode == Mode.train else dataset


def why_dataset(name: str, root: str | None, typed: Sequence[str]) -> str:
    """The first line of a run: which dataset it uses, why, and how to choose another."""
    if "dataset" in chosen(typed):
        reason, other = "as typed", "coco dataset.root=PATH" if name == "digits" else "digits"
    elif name == "digits":
        reason, other = "built in, the default", "coco dataset.root=PATH"
    else:
        reason, other = "PVT_BENCH_DATA is set", "digits"
    place = f" at {root}" if root else ""
    return f"dataset: {name}{place} ({reason}; dataset={other} chooses another)"


def _compose(cell: list[str]) -> Config:
    config = compose("config", cell)
    check_fields(config)
    return typed(config)


def _compose_all(cells: Sequence[list[str]]) -> Iterator[Config]:
    return _compose_many(cells) if len(cells) > MANY else map(_compose, cells)


def _compose_many(cells: Sequence[list[str]]) -> Iterator[Config]:
    """Compose on all cores: a cell takes Hydra a tenth of a second."""
    yield _compose(cells[0])  # A wrong word is told at once.
    with progress_bar("composing", len(cells), done=1) as bar:
        found = spread(_compose_if_right, cells[1:], CHUNK, _enter_configuration)
        for cell, config in zip(cells[1:], found, strict=True):
            # Here once more what is wrong: an error loses its cause between processes.
            yield _compose(cell) if config is None else config
            bar.advance()


def _compose_if_right(cell: list[str]) -> Config | None:
    try:
        return _compose(cell)
    except Exception:
        return None


def _enter_configuration() -> None:
    register()
    initialize_config_dir(str(config_dir()), version_base="1.3")


def _combine(words: Sequence[str]) -> list[list[str]]:
    """The overrides of each combination of what is swept; of words with one key the last counts."""
    swept = experiment(words).get("hydra", {}).get("sweeper", {}).get("params", {})
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    try:
        typed = parser.parse_overrides([*(f"{k}={value}" for k, value in swept.items()), *words])
    except OverrideParseException as error:
        raise InputError(how_to_type(error.override)) from error
    choices = {each.get_key_element(): _choices(each) for each in typed}
    return [list(cell) for cell in product(*choices.values())]


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        raise InputError(
            f"{override.input_line}: list the values of {key} with commas between them."
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _one_or_several(words: Sequence[str], cells: Sequence[list[str]]) -> str:
    key = swept_keys(cells)[0]
    word = next(word for word in words if word.lstrip("+").startswith(f"{key}="))
    return (
        "Several values of a key make a sweep: add -m in front of the words. A value that contains "
        f"a comma needs quotes: {quote(word)}"
    )
