"""What a command line chooses of each group, and the YAML files that there are to choose from."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from pvt_bench.config.folders import config_dir, data_dir

# Groups of which a choice sets others: every row of a published table, or a study.
EXPERIMENTS = ("table", "sweep")
SEARCHPATH = "hydra.searchpath"


def chosen(words: Sequence[str]) -> dict[str, str]:
    """Value of each key that is typed, over what the named experiment chooses of each group."""
    typed = [word.lstrip("+").partition("=") for word in words]
    values = {key: value.strip("'\"") for key, equals, value in typed if equals}
    return {**_overrides(experiment(words)), **values}


def typed_experiment(words: Sequence[str]) -> tuple[str, str] | None:
    """Group and name of the experiment that the command names: ("table", "imagenet")."""
    typed = [word.partition("=") for word in words]
    named = [(group, name) for group, _, name in typed if group in EXPERIMENTS and name]
    return named[-1] if named else None


def experiment(words: Sequence[str]) -> dict[str, Any]:
    """Content of the named experiment's file; empty without one."""
    named = typed_experiment(words)
    return read_choice(*named, words) if named else {}


def default_choices() -> dict[str, str]:
    """What is chosen of each group where nothing is typed."""
    defaults = yaml.safe_load((config_dir() / "config.yaml").read_text())["defaults"]
    return {
        group: name for each in defaults if isinstance(each, dict) for group, name in each.items()
    }


def read_choice(group: str, name: str, words: Sequence[str]) -> dict[str, Any]:
    """Content of the first file of that name; empty without one, of which Hydra tells."""
    paths = [folder / group / f"{name}.yaml" for folder in _folders(words)]
    path = next((path for path in paths if path.is_file()), None)
    return (yaml.safe_load(path.read_text()) or {}) if path else {}


def names_of(group: str, words: Sequence[str]) -> list[str]:
    """Names that there are to choose from, sorted."""
    found = (path for folder in _folders(words) for path in folder.glob(f"{group}/*.yaml"))
    return sorted({path.stem for path in found})


def own_dataset(task: str, given: str | None) -> str:
    """Dataset that a task was published for.

    given: the task's key `dataset`, without which it is the first word of the task's name, as in
        records made before there was the key.
    """
    return given or task.partition("_")[0]


def _overrides(content: dict[str, Any]) -> dict[str, str]:
    pairs = [
        pair
        for each in content.get("defaults", [])
        if isinstance(each, dict)
        for pair in each.items()
    ]
    return {
        key.removeprefix("override /"): name for key, name in pairs if key.startswith("override /")
    }


def _folders(words: Sequence[str]) -> list[Path]:
    """Folders of pvt-bench's choices, and those that `hydra.searchpath` names."""
    typed = [word for word in words if word.lstrip("+").startswith(f"{SEARCHPATH}=")]
    value: Any = OverridesParser.create().parse_override(typed[-1]).value() if typed else []
    named = [str(place) for place in (value if isinstance(value, list) else [value])]
    return [config_dir(), data_dir("experiments"), *filter(None, map(_folder, named))]


def _folder(place: str) -> Path | None:
    if not place.startswith("pkg://"):
        return Path(place.removeprefix("file://"))
    try:
        return Path(str(files(place.removeprefix("pkg://").replace("/", "."))))
    except ModuleNotFoundError:
        return None  # Hydra warns of it.
