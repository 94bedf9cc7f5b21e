"""All that users can type or read by name, one line each: `python tests/surface.py`.

`tests/surface.txt` holds it as it was agreed on; `tests/test_surface.py` compares the two.
"""

import contextlib
import dataclasses
import importlib
import io
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

import pvt_bench
from pvt_bench import commands as shell
from pvt_bench.config import command_line
from pvt_bench.config.folders import config_dir, data_dir
from pvt_bench.config.recipes import recipe_table
from pvt_bench.config.schema import Config, Report
from pvt_bench.measure.cost import PARTS, Cost
from pvt_bench.measure.speed import Speed
from pvt_bench.options import MARKDOWN
from pvt_bench.report.options import Options
from pvt_bench.report.tables.published import FIGURES

SURFACE = Path(__file__).with_name("surface.txt")
PACKAGE = Path(pvt_bench.__file__).parent
# Commands beside the main one; those without options of a dataclass tell their keys in errors.
SMALL = ("status", "sync", "export")


def lines() -> list[str]:
    """Every line of the surface, sorted."""
    found = [
        *keys(Config),
        *keys(Report, "key report."),
        *parts(),
        *choices(),
        *commands(),
        *metrics(),
        *variables(),
    ]
    return sorted(set(found))


def keys(schema: type, start: str = "key ") -> Iterator[str]:
    """The fields of a dataclass and of those below it, with their types and defaults."""
    node: Any = OmegaConf.structured(schema)
    for each in dataclasses.fields(schema):
        below = node._get_node(each.name)
        kind = OmegaConf.get_type(below)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from keys(kind, f"{start}{each.name}.")
        else:
            text = "???" if below._is_missing() else str(below)
            yield f"{start}{each.name}: {type_of(each)} = {text}"


def type_of(each: dataclasses.Field[Any]) -> str:
    """The type of a key; of an enumeration its members."""
    if isinstance(each.type, type) and issubclass(each.type, Enum):
        return " or ".join(each.type.__members__)
    name = re.sub(r"<class '([\w.]+)'>", r"\1", str(each.type)).replace("typing.", "")
    return name.rpartition("schema.")[2]


def parts() -> Iterator[str]:
    """The values of `conf/`: the main file, tasks and datasets; of models the options' names."""
    main = yaml.safe_load((config_dir() / "config.yaml").read_text())
    yield from leaves({key: main[key] for key in main if key != "defaults"}, "config.yaml: ")
    for group in ("task", "dataset"):
        for path in config_dir().glob(f"{group}/*.yaml"):
            yield from leaves(yaml.safe_load(path.read_text()), f"{group}={path.stem} {group}.")
    for path in config_dir().glob("model/*.yaml"):
        yield from (f"key model.{option}" for option in yaml.safe_load(path.read_text()))


def leaves(node: Mapping[str, Any], start: str) -> Iterator[str]:
    """The keys of nested mappings with their values."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{start}{key}.")
        elif key != "_target_":
            yield f"{start}{key} = {value}"


def choices() -> Iterator[str]:
    """What each group can be, and the names that schedules have in results."""
    for folder in (config_dir(), data_dir("experiments")):
        for path in folder.glob("*/*.yaml"):
            yield f"choice {path.parent.name}={path.stem}"
    yield from (f"choice recipe={name}" for name in recipe_table()["settings"])
    for path in config_dir().glob("schedule/*.yaml"):
        name = re.findall(r"\bname: (\w+)", path.read_text())[0]
        yield f"schedule.name = {name} of schedule={path.stem}"


def commands() -> Iterator[str]:
    """The commands with their options, and the exit codes."""
    for option in (*command_line.QUESTIONS, *command_line.MULTIRUN):
        yield f"python -m pvt_bench {option}"
    yield from keys(Options, "python -m pvt_bench.report ")
    yield "python -m pvt_bench.preflight"
    yield f"python -m pvt_bench.options {MARKDOWN}"
    for name in SMALL:
        yield from (f"python -m pvt_bench.{name} {key}=" for key in typed_keys(name))
    for name in ("FAILED", "REFUSED", "INTERRUPTED"):
        yield f"exit code {getattr(shell, name)}: {name.lower()}"


def typed_keys(command: str) -> list[str]:
    """The keys of a small command, which it lists where it is given another."""
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        code = importlib.import_module(f"pvt_bench.{command}").main(["?="])
    found = re.search(r"Choose one of: ([\w, ]+)\.", " ".join(output.getvalue().split()))
    assert code == shell.REFUSED, output.getvalue()
    assert found, output.getvalue()
    return found[1].split(", ")


def metrics() -> Iterator[str]:
    """The names of metrics in records and in MLflow, and of figures in tables."""
    parts = {part: {"params_m": 0.0, "gflops": 0.0} for part in PARTS}
    cost = Cost(0, 0, 0, parts, (1, 1))
    nothing: Any = dict.fromkeys((each.name for each in dataclasses.fields(Speed)), 0)
    speed = Speed(**nothing)
    yield from (f"metric {name}" for name in (*cost.metrics(), *speed.metrics()))
    yield from (f"figure {name}: {each.metric}" for name, each in FIGURES.items())
    yield from (f"metric {each.metric}" for each in FIGURES.values())
    written = re.compile(r'"((?:cost|speed|train|val)/[a-z]\w*)"')
    yield from (f"metric {name}" for name in named(written))


def variables() -> Iterator[str]:
    """The environment variables that are read."""
    mine = re.compile(r"\b((?:PVT_BENCH|HYDRA)_[A-Z_]+)\b")
    yield from (f"environment {name}" for name in named(mine))


def named(pattern: re.Pattern[str]) -> set[str]:
    """What a pattern finds in the code and in the configuration."""
    files = [*PACKAGE.rglob("*.py"), *config_dir().rglob("*.yaml")]
    return {name for path in files for name in pattern.findall(path.read_text())}


if __name__ == "__main__":
    print("\n".join(lines()))
