"""Which keys a run has: one that nothing reads, or that was taken away, is refused."""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from pvt_bench.config.choices import EXPERIMENTS
from pvt_bench.config.schema import Config, Protocol, Task
from pvt_bench.config.targets import find_target, refuse_other_calls
from pvt_bench.errors import InputError, near, nearest

# What to type in place of a setting of Hydra's own launcher, by the beginning of its key.
INSTEAD = {
    "hydra.run": "results_dir=PATH",
    "hydra.sweep.": "results_dir=PATH",
    "hydra.output_subdir": "results_dir=PATH",
    "hydra.launcher": "launcher=local or launcher=slurm",
    "hydra/launcher": "launcher=local or launcher=slurm",
    "hydra.sweeper": "-m with the values of each key, such as seed=0,1,2",
    "hydra/sweeper": "-m with the values of each key, such as seed=0,1,2",
    "hydra.mode": "-m",
    "hydra.verbose": "HYDRA_FULL_ERROR=1 in front of the command for tracebacks",
}
# What a run is composed of, one choice of each.
GROUPS = ("model", "task", "dataset", "schedule", "trainer", "launcher")
# What a run can do without, for it only changes other keys.
REMOVABLE = ("recipe", "recipe_on")
Types = dict[str, Any]
# What every model has beside the options of its backbone.
MODEL: Types = {"name": str, "weights": str | None}
# What the run itself passes to what `_target_` names.
NETWORK_OBJECTS = ("backbone", "num_classes")
MODULE_OBJECTS = ("network", "build_optimizer", "view", "schedule")
# Of a backbone the run decides these by the task and its data.
BACKBONE_OBJECTS = ("num_classes", "features")
WORDS = {
    Any: "any value",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
}


def check_words(words: Sequence[str]) -> None:
    """Refuse words that would change nothing, or take away what a run reads.

    Raises:
        InputError: a setting of Hydra's own, `~key`, or a group without a choice.
    """
    for word in words:
        key, _, value = word.partition("=")
        key = key.lstrip("+~")
        nothing = {"recipe": [""]}.get(key, ["", "null"])
        grouped = key in (*GROUPS, *EXPERIMENTS, "recipe") and not word.startswith("~")
        if grouped and value in nothing:
            other = "recipe=null" if key == "recipe" else "leave the word out"
            raise InputError(f"{word} names nothing. Use {key}=NAME, or {other}.")
        if key.startswith(("hydra.", "hydra/")) and not key.startswith("hydra.searchpath"):
            instead = next((each for start, each in INSTEAD.items() if key.startswith(start)), "")
            raise InputError(
                f"{word} would change nothing: pvt-bench composes with Hydra, and starts and "
                f"places its runs itself. {f'Use {instead}' if instead else 'Leave it out'}."
            )
        if word.startswith("~") and key not in REMOVABLE and not _is_free(key):
            raise InputError(
                f"{word} takes away a key that runs read. Leave ~{key} out; {key}=... sets it."
            )


def check_fields(config: DictConfig) -> None:
    """Refuse keys that the dataclasses of `pvt_bench.config` do not have; imports no class.

    Raises:
        InputError: the first such key, with those that are near to it.
    """
    for key, known in _unknown_fields(config):
        right = [each for each in all_keys(config) if each != key]
        raise InputError(no_key(key, known, right))
    # From the environment: Hydra would take it for a reference where it is read a second time.
    if "${" in config.results_dir:
        raise InputError(
            f"results_dir={config.results_dir}: a path with ${{ cannot be used. Use another "
            "results_dir=PATH."
        )


def check_targets(config: Config) -> None:
    """Refuse keys and types that the classes and functions named by `_target_` do not take.

    Imports those. What a built-in backbone takes it checks itself when it is built.

    Raises:
        InputError: the first such key, with what was expected.
    """
    node: Any = config
    values: Any = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    refuse_other_calls(values)
    task = values["task"]
    _check_model(values["model"])
    _check_fields("task", task, Task)
    _check_fields("task.protocol", task["protocol"], Protocol)
    _check_target("task.network", task["network"], NETWORK_OBJECTS)
    _check_target("task.module", task["module"], MODULE_OBJECTS)
    dataset = _check_target("dataset", values["dataset"])
    view, options = _view_of(dataset, task["view"]), task.get("view_options") or {}
    _check_call("task.view_options", view, options, ("self", "split"))
    for name, reader in getattr(dataset, "READERS", {}).items():
        _check_call(f"dataset.{name}", reader, values["dataset"][name], ("name", "root"))


def _check_fields(prefix: str, node: Types, kind: type) -> None:
    """Check a node against a dataclass, whose fields with a default may be left out."""
    needed = [each.name for each in fields(kind) if each.default is MISSING]
    _check(prefix, node, get_type_hints(kind), needed)


def _check_model(model: Types) -> None:
    _refuse_passed("model", model, BACKBONE_OBJECTS)
    _check("model", {key: model[key] for key in MODEL if key in model}, MODEL, MODEL)
    if "_target_" in model:
        options = {key: each for key, each in model.items() if key not in MODEL}
        _check_target("model", options, BACKBONE_OBJECTS)


def no_key(key: str, known: Collection[str], everywhere: Collection[str] = ()) -> str:
    """The message for an unknown key.

    known: the dotted keys beside it. everywhere: those of all groups, where it may belong.
    """
    _, dot, end = key.rpartition(".")
    moved = [each for each in everywhere if each.rpartition(".")[2] == end]
    if not dot and not moved and not near(key, sorted(known)):
        ends = {each.rpartition(".")[2]: each for each in everywhere}
        moved = [ends[each] for each in near(key, sorted(ends))]
    message = f"There is no key {key}. "
    if moved:
        return f"{message}Did you mean {' or '.join(moved)}?"
    message += nearest(key, known)
    if everywhere and not near(key, sorted(known)):
        message += f" python -m pvt_bench.options {key.rpartition('.')[0]}".rstrip()
        message += " explains them."
    return message


def all_keys(node: object, prefix: str = "") -> list[str]:
    """The dotted keys of a configuration that hold a value, not others."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return [prefix.rstrip(".")]
    own = [key for key in map(str, node) if f"{prefix}{key}" != "hydra"]
    return [each for key in own for each in all_keys(node._get_node(key), f"{prefix}{key}.")]


def _is_free(key: str) -> bool:
    """Whether a key lies in one of the dicts that take any key."""
    node: Any = OmegaConf.structured(Config)
    for part in key.split("."):
        kind = OmegaConf.get_type(node)
        if not is_dataclass(kind):
            return kind is dict
        if part not in node:
            return False
        node = node._get_node(part)
    return False


def _unknown_fields(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    kind = OmegaConf.get_type(node)
    known = [each.name for each in fields(kind)] if is_dataclass(kind) else None
    for key in map(str, node):
        if known is not None and key not in known:
            yield f"{prefix}{key}", [f"{prefix}{each}" for each in known]
        below = node._get_node(key)
        if isinstance(below, DictConfig) and not (below._is_none() or below._is_missing()):
            yield from _unknown_fields(below, f"{prefix}{key}.")


def _check_target(prefix: str, node: Types, passed: Collection[str] = ()) -> Any:
    """What `_target_` names, which takes all other keys of the node, and `passed` by the run."""
    target = find_target(prefix, node.get("_target_"))
    options = {key: value for key, value in node.items() if key != "_target_"}
    _check_call(prefix, target, options, passed)
    return target


def _view_of(dataset: Any, name: str) -> Any:
    if (view := getattr(dataset, name, None)) is None:
        raise InputError(
            f"dataset._target_: {dataset.__qualname__} has no view {name}. Use dataset=NAME of a "
            "dataset that has one."
        )
    return view


def _check_call(prefix: str, target: Any, options: Types, passed: Collection[str]) -> None:
    _refuse_passed(prefix, options, passed)
    parameters = inspect.signature(target).parameters
    types = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    own = {key: each for key, each in parameters.items() if key not in passed}
    known = {key: types.get(key, Any) for key in own}
    if any(each.kind == each.VAR_KEYWORD for each in own.values()):
        known |= {key: Any for key in options if key not in parameters}
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = [key for key, each in own.items() if each.default is each.empty]
    needed = [key for key in needed if own[key].kind not in kinds]
    _check(prefix, options, known, needed)


def _refuse_passed(prefix: str, options: Types, passed: Collection[str]) -> None:
    for key in passed:
        if key in options:
            raise InputError(
                f"{prefix}.{key} cannot be set: the run decides it by its task and its data. "
                "Leave it out."
            )


def _check(prefix: str, node: Types, types: Types, needed: Collection[str]) -> None:
    for key, value in node.items():
        if key not in types:
            raise InputError(no_key(f"{prefix}.{key}", [f"{prefix}.{each}" for each in types]))
        if not fits(value, types[key]):
            raise InputError(
                f"{prefix}.{key}={value} cannot be used: expected {in_words(types[key])}."
            )
    for key in needed:
        if key not in node:
            raise InputError(f"{prefix}.{key} has no value: expected {in_words(types[key])}.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a configuration is what a parameter with that type hint takes.

    A whole number is also a `float`, and a list is any sequence; of other hints than those of
    plain values all is taken.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if hint in (None, NoneType):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (int, bool, str):
        return type(value) is hint
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        if origin is tuple and ... not in inner:
            return len(value) == len(inner) and all(map(fits, value, inner))
        return all(fits(each, inner[0]) for each in value)
    if is_dataclass(hint) or (inspect.isclass(origin) and issubclass(origin, Mapping)):
        return isinstance(value, Mapping)
    return True


def in_words(hint: Any) -> str:
    """A type hint as messages and docs put it: "a whole number or null"."""
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return " or ".join(hint.__members__)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(in_words(each) for each in inner)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is tuple and ... not in inner:
        return f"a list of {len(inner)}, each {in_words(inner[0])}"
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return f"a list, each {in_words(inner[0])}"
    return WORDS.get(hint, "null" if hint in (None, NoneType) else "keys with values")
