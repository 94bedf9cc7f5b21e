"""Imports go downward only, targets lie in their rooms, and light commands stay light."""

import ast
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
import yaml

from pvt_bench.config.folders import config_dir

PACKAGE = Path(__file__).parents[1] / "pvt_bench"

# From top to bottom; rooms on one floor do not import each other.
FLOORS = (
    ("__main__", "export", "options", "preflight", "status", "sync"),
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

# The report's rooms, from top to bottom.
REPORT = (
    ("__main__",),
    ("making",),
    ("formats",),
    ("pictures",),
    ("tables",),
    ("sources", "options"),
)
REPORT_LEVEL = {room: level for level, floor in enumerate(REPORT) for room in floor}

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
    "path",
    sorted((PACKAGE / "report").rglob("*.py")),
    ids=lambda path: str(path.relative_to(PACKAGE / "report")),
)
def test_the_rooms_of_the_report_import_downward(path: Path) -> None:
    own = path.relative_to(PACKAGE / "report").parts[0].removesuffix(".py")
    for name in imports(path):
        if name.startswith("pvt_bench.report.") and (room := name.split(".")[2]) != own:
            assert REPORT_LEVEL[room] > REPORT_LEVEL[own], f"{own} must not import {name}"


def test_modules_import_each_other_in_no_circle() -> None:
    """Depth first over what each module imports as it is loaded."""
    names = {module_name(path): path for path in MODULES}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join([*way[way.index(name) :], name])}"
        if name not in done:
            for other in sorted(loaded_with(names[name], names.keys())):
                visit(other, (*way, name))
            done.add(name)

    for name in names:
        visit(name, ())
    assert len(done) == len(MODULES) > 100


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loaded_with(path: Path, modules: Collection[str]) -> set[str]:
    """The modules of ours that a module imports at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & {*modules}


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


@pytest.mark.parametrize("command", ["__main__", "options", "status", "sync"])
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
