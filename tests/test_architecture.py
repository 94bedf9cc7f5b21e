"""Imports go downward only, targets lie in their rooms, and light commands stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pvt_bench.config.schema import config_dir

PACKAGE = Path(__file__).parents[1] / "pvt_bench"

# From top to bottom; rooms on one floor do not import each other.
FLOORS = (
    ("__main__", "export", "preflight", "status", "sync"),
    ("launching", "report"),
    ("run",),
    ("records", "training", "outcome"),
    ("builders", "names"),
    ("tasks",),
    ("networks",),
    ("backbones", "datasets", "measure", "tracking"),
    ("identity",),
    ("commands",),
    ("config",),
    ("screen",),
    ("processes",),
    ("colours", "errors", "escaping", "files"),
)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms that a group of conf/ may name in `_target_`.
TARGET_ROOMS = {"task": ("tasks", "networks"), "dataset": ("datasets",)}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    own = room_of(path)
    if own == "__init__":
        assert not imports(path)
        return
    for name in imports(path):
        package, *rest = name.split(".")
        if package == "pvt_bench" and rest[0] != own:
            assert LEVEL[rest[0]] > LEVEL[own], f"{own} must not import {name}"


@pytest.mark.parametrize(
    ("rooms", "forbidden"),
    [
        (
            (
                "report",
                "tracking",
                "screen",
                "config",
                "colours",
                "errors",
                "escaping",
            ),
            ("torch", "lightning"),
        ),
        (("networks", "backbones", "measure", "tracking", "datasets"), ("lightning",)),
    ],
)
def test_light_rooms_stay_light(rooms: tuple[str, ...], forbidden: tuple[str, ...]) -> None:
    for path in MODULES:
        if room_of(path) in rooms:
            assert not {name.split(".")[0] for name in imports(path)} & set(forbidden), path


@pytest.mark.parametrize("command", ["__main__", "status", "sync"])
def test_what_a_light_command_imports(command: str) -> None:
    code = f"import sys, pvt_bench.{command}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "mlflow", "lightning"} & set(done.stdout.split())


def targets(node: object) -> list[str]:
    if isinstance(node, dict):
        below = [target for value in node.values() for target in targets(value)]
        return [*below, str(node["_target_"])] if "_target_" in node else below
    return []


@pytest.mark.parametrize(
    "path",
    sorted(config_dir().rglob("*.yaml")),
    ids=lambda path: str(path.relative_to(config_dir())),
)
def test_targets_lie_in_the_rooms_of_their_group(path: Path) -> None:
    rooms = TARGET_ROOMS.get(path.parent.name, ())
    for target in targets(yaml.safe_load(path.read_text())):
        package, room, *_ = target.split(".")
        assert package == "pvt_bench"
        assert room in rooms, f"{target} is not in {rooms}"
