"""What keys mean: type, default and sentence of each, from what reads it."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, NamedTuple, get_type_hints

import yaml
from omegaconf import MISSING as NO_DEFAULT

from pvt_bench.config.choices import names_of, read_choice
from pvt_bench.config.command_line import compose_each
from pvt_bench.config.folders import config_dir
from pvt_bench.config.keys import MODULE_OBJECTS, NETWORK_OBJECTS, in_words
from pvt_bench.config.schema import Config, Gap, Protocol, Report, Task, plain
from pvt_bench.config.targets import find_target

NONE = "none"
# So many files that set another value than the default are told with it.
FEW = 3


class Key(NamedTuple):
    """A key that can be typed.

    kind: its type in words. default: its value where nothing is typed.
    """

    name: str
    kind: str
    default: str
    sentence: str


class Section(NamedTuple):
    """Keys that belong together."""

    title: str
    keys: list[Key]


def sentences(owner: Any, names: Collection[str]) -> dict[str, str]:
    """Sentence of each key, from lines `key: sentence` in a docstring.

    owner: a class, whose parents are asked as well, or a function.
    """
    owners = reversed(owner.__mro__) if inspect.isclass(owner) else [owner]
    found: dict[str, str] = {}
    for each in owners:
        found |= _read_lines(inspect.cleandoc(each.__doc__ or ""), names)
    return found


def _read_lines(text: str, names: Collection[str]) -> dict[str, str]:
    pattern = re.compile(r"^( *)(\w+): (.+(?:\n\1 +\S.*)*)", re.MULTILINE)
    return {
        name: " ".join(sentence.split())
        for _, name, sentence in pattern.findall(text)
        if name in names
    }


def in_yaml(value: Any) -> str:
    """A value as it is typed; a reference to another key or variable in words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if value in (NO_DEFAULT, MISSING, inspect.Parameter.empty):
        return NONE
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_yaml, value))}]"
    text = value.name if isinstance(value, Enum) else str(value)
    text = re.sub(r"\$\{oc\.env:(\w+),(\w+)\}", r"$\1, else \2", text)
    return re.sub(r"\$\{either:\$\{([\w.]+)\},(\w+)\}", r"\1, else \2", text) or "empty"


def schema_keys(prefix: str, kind: Any, values: Mapping[str, Any]) -> list[Key]:
    """Keys of a dataclass but for the groups below it.

    values: what a file sets, in place of the dataclass's defaults.
    """
    hints = get_type_hints(kind)
    defaults = {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(kind)
        if not is_dataclass(hints[each.name])
    }
    told = sentences(kind, defaults)
    return [
        Key(
            f"{prefix}{name}",
            in_words(hints[name]),
            in_yaml(values.get(name, default)),
            told.get(name, ""),
        )
        for name, default in defaults.items()
    ]


def call_keys(
    prefix: str, target: Callable[..., Any], passed: Collection[str], values: Mapping[str, Any]
) -> list[Key]:
    """Keys that a class or function takes as parameters.

    passed: parameters that the run itself sets. values: what a file sets.
    """
    parameters = inspect.signature(target).parameters
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    own = {name: each for name, each in parameters.items() if name not in passed}
    told = sentences(target, own)
    return [
        Key(
            f"{prefix}{name}",
            in_words(hints.get(name, Any)),
            in_yaml(values.get(name, each.default)),
            told.get(name, ""),
        )
        for name, each in own.items()
        if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]


def groups() -> dict[str, Any]:
    """Groups of keys with the dataclass of each, and Any for what classes of their own read."""
    hints = get_type_hints(Config)
    kinds = {name: kind for name, kind in hints.items() if is_dataclass(kind) or kind is Any}
    return {**kinds, "task": Task, "report": Report}


def run_keys() -> list[Key]:
    """Keys of a run outside all groups, such as `mode` and `seed`."""
    values = yaml.safe_load((config_dir() / "config.yaml").read_text())
    return [key for key in schema_keys("", Config, values) if key.name not in groups()]


def group_sentences() -> dict[str, str]:
    """What each group is for; of those that hold no keys from the main file's comments."""
    main = (config_dir() / "config.yaml").read_text()
    commented = dict(re.findall(r"^  - (recipe|table|sweep): null # (.+)$", main, re.MULTILINE))
    return {**sentences(Config, groups()), **commented}


def plain_sections(group: str) -> list[Section]:
    """The keys of a group that a dataclass describes."""
    values = yaml.safe_load((config_dir() / "config.yaml").read_text()).get(group, {})
    keys = schema_keys(f"{group}.", groups()[group], values)
    if names_of(group, []):
        keys = [key._replace(default=_compare(group, key)) for key in keys]
    gaps = [_plain_section("report.gaps.NAME", Gap)] if group == "report" else []
    return [Section("", keys), *gaps]


def chosen_section(group: str, name: str, words: Sequence[str]) -> Section:
    """The keys of a group that a dataclass describes, with the values of one of its files."""
    keys = schema_keys(f"{group}.", groups()[group], content_of(group, name, words))
    return Section(f"{group}={name}", keys)


def content_of(group: str, name: str, words: Sequence[str]) -> dict[str, Any]:
    """What a file sets in its own group, with what it takes from others by `defaults`."""
    content = read_choice(group, name, words)
    if "defaults" in content:
        node: Any = compose_each([[f"{group}={name}", *words]])[0]
        content = plain(node[group])
    # Some schedules set keys of the task as well.
    own: dict[str, Any] = content[group] if isinstance(content.get(group), dict) else content
    return own


def task_sections(names: Sequence[str], words: Sequence[str]) -> list[Section]:
    """The keys of tasks: those of all, then those of each network and module."""
    files = {name: content_of("task", name, words) for name in names}
    shared = files[names[0]] if len(names) == 1 else {}
    found = [
        Section("", schema_keys("task.", Task, _scalars(shared))),
        Section("", schema_keys("task.protocol.", Protocol, shared.get("protocol", {}))),
    ]
    if len(names) > 1:
        found = [_by_choice("task", section) for section in found]
    for name, content in files.items():
        keys = _target_keys("task.network", content["network"], NETWORK_OBJECTS)
        keys += _target_keys("task.module", content["module"], MODULE_OBJECTS)
        found.append(Section(f"task={name}", keys))
    return found


def dataset_sections(names: Sequence[str], words: Sequence[str]) -> list[Section]:
    """The keys of datasets, and those of the views of one that reads several layouts."""
    found: list[Section] = []
    for name in names:
        content = content_of("dataset", name, words)
        found.append(Section(f"dataset={name}", _target_keys("dataset", _scalars(content))))
        target = find_target("dataset", content["_target_"])
        for view, reader in getattr(target, "READERS", {}).items():
            below = call_keys(f"dataset.{view}.", reader, ("name", "root"), content[view])
            found.append(Section(f"dataset={name}, {view}", below))
    return found


def _target_keys(prefix: str, node: Mapping[str, Any], passed: Collection[str] = ()) -> list[Key]:
    target = find_target(prefix, node.get("_target_"))
    return call_keys(f"{prefix}.", target, passed, node)


def _plain_section(title: str, kind: Any) -> Section:
    return Section("", schema_keys(f"{title}.", kind, {}))


def _scalars(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file sets but for nested keys, which are told by themselves."""
    return {key: "see below" if isinstance(each, dict) else each for key, each in content.items()}


def _by_choice(group: str, section: Section) -> Section:
    """A section whose keys without a default are set by each choice of the group."""
    keys = [
        key._replace(default=f"by {group}") if key.default == NONE else key for key in section.keys
    ]
    return section._replace(keys=keys)


def _compare(group: str, key: Key) -> str:
    """The default, and the values of files that set another."""
    name, told = key.name.removeprefix(f"{group}."), []
    for choice in names_of(group, []):
        content = content_of(group, choice, [])
        if name in content and in_yaml(content[name]) != key.default:
            told.append(f"{in_yaml(content[name])} with {group}={choice}")
    if key.default == NONE:
        return f"by {group}"
    others = told if len(told) <= FEW else [f"others by {group}"]
    return "; ".join([key.default, *others])
