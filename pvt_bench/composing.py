"""What a command line is taken to mean, and how it is explained where it means nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pvt_bench.config import data_dir
from pvt_bench.errors import InputError, nearest

EXPERIMENTS = ("table", "sweep")


def add_dataset(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Where PVT_BENCH_DATA is set and no dataset is typed, add the task's own.

    The first word of a task's name is its dataset: coco_retinanet, imagenet_classification.
    """
    if not environment.get("PVT_BENCH_DATA") or _names_dataset(arguments):
        return list(arguments)
    tasks = [word.removeprefix("task=") for word in arguments if word.startswith("task=")]
    tasks = tasks or experiment_tasks(arguments)
    own = dict.fromkeys(task.partition("_")[0] for task in tasks[-1:] if "," not in task)
    return [*arguments, *(f"dataset={name}" for name in own)]


def typed_experiment(arguments: Sequence[str]) -> tuple[str, str] | None:
    """The group and the name of the experiment that the command names: ("table", "imagenet")."""
    typed = [word.partition("=") for word in arguments]
    named = [(group, name) for group, _, name in typed if group in EXPERIMENTS and name]
    return named[-1] if named else None


def experiment_tasks(arguments: Sequence[str]) -> list[str]:
    """The tasks that the named experiment sets, by its file."""
    group, name = typed_experiment(arguments) or ("", "")
    path = data_dir("experiments") / group / f"{name}.yaml"
    if not path.is_file():
        return []
    defaults = yaml.safe_load(path.read_text()).get("defaults", [])
    return [task for each in defaults if (task := each.get("override /task"))]


def swept_keys(overrides: Sequence[Sequence[str]]) -> list[str]:
    """The keys whose values differ between the cells of a sweep, by the cells' overrides."""
    cells = [dict(word.split("=", 1) for word in words if "=" in word) for words in overrides]
    keys = dict.fromkeys(key for cell in cells for key in cell)
    return [key.lstrip("+") for key in keys if len({cell.get(key) for cell in cells}) > 1]


def sweep_title(arguments: Sequence[str], swept: Sequence[str]) -> str:
    """What a sweep is called: by its experiment's file, or by what was swept."""
    _, name = typed_experiment(arguments) or ("", "")
    return name or "-".join(key.rpartition(".")[2] for key in swept) or "run"


def check_named(arguments: Sequence[str], conf: Path) -> None:
    """Refuse a command that does not name its model or its task; `conf` holds the choices."""
    if any(word.startswith("--") and word != "--multirun" for word in arguments):
        return  # Hydra's own questions, such as --help, need neither.
    if typed_experiment(arguments):
        return
    for group in ("model", "task"):
        if not any(word.startswith(f"{group}=") for word in arguments):
            options = sorted(path.stem for path in (conf / group).glob("*.yaml"))
            raise InputError(
                f"Which {group}? Type {group}={options[0]}, or another of: {', '.join(options)}."
            )


def read_words(
    arguments: Sequence[str], defaults: Mapping[str, str | None]
) -> dict[str, str | None]:
    """The words `key=value` of a small command, over its defaults.

    Raises:
        InputError: a word that is not `key=value`, or a key that the command has not.
    """
    values = dict(defaults)
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals or key not in defaults:
            raise InputError(
                f"{word} cannot be used here. {nearest(key, defaults)} Type for example "
                f"{next(iter(defaults))}=..."
            )
        values[key] = value
    return values


def why_dataset(name: str, root: str | None, typed: Sequence[str]) -> str:
    """The first line of a run: which dataset it uses, why, and how to choose another."""
    if _names_dataset(typed):
        reason, other = "as typed", "coco dataset.root=PATH" if name == "digits" else "digits"
    elif name == "digits":
        reason, other = "built in, the default", "coco dataset.root=PATH"
    else:
        reason, other = "PVT_BENCH_DATA is set", "digits"
    place = f" at {root}" if root else ""
    return f"dataset: {name}{place} ({reason}; dataset={other} chooses another)"


def explain(error: BaseException) -> str | None:
    """What is wrong with the input, what was expected and what to type; None for other errors."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _explain_choice(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_key(error)
    return None


def _names_dataset(arguments: Sequence[str]) -> bool:
    return any(word.startswith("dataset=") for word in arguments)


def _explain_choice(error: MissingConfigException) -> str:
    group, _, word = (error.missing_cfg_file or "").rpartition("/")
    if not group or not error.options:
        return str(error)
    options = list(error.options)
    everything = ", ".join(sorted(options))
    return f"There is no {group}={word}. {nearest(word, options)}\n{group} is one of: {everything}"


def _explain_key(error: HydraException | OmegaConfBaseException) -> str:
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if not isinstance(cause, OmegaConfBaseException):
        return str(error).replace("\t", "  ")
    what = str(cause).splitlines()[0]
    parent = cause.parent_node
    if cause.full_key and isinstance(parent, DictConfig) and cause.key not in parent:
        path = cause.full_key.rpartition(".")[0]
        keys = [f"{path}.{key}".removeprefix(".") for key in map(str, parent)]
        # The YAML of a model lists what is usual, not all that its network takes.
        plus = f" Others with a plus: +{cause.full_key}=..." if path == "model" else ""
        return f"There is no key {cause.full_key}. {nearest(cause.full_key, keys)}{plus}"
    return f"{cause.full_key}: {what}" if cause.full_key else what
