"""Records as runs leave them, made in milliseconds, for the tests of the report."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from conftest import environment
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from pvt_bench.config.folders import config_dir
from pvt_bench.config.recipes import add_recipe
from pvt_bench.config.registry import register
from pvt_bench.identity import flatten, identity, read_keys
from pvt_bench.report.options import parse
from pvt_bench.report.sources.runs import load_runs
from pvt_bench.report.tables.comparison import build_tables
from pvt_bench.report.tables.rows import Table
from pvt_bench.report.tables.selection import select
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.record import Record

TASK = "task=coco_retinanet"
COST = {"cost/params_m": 34.2208, "cost/params_all_m": 34.2208, "cost/gflops": 285.802}


@cache
def _composed(words: tuple[str, ...]) -> dict[str, Any]:
    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return read_keys(compose("config", add_recipe(words)))


def settings(*words: str) -> dict[str, Any]:
    """What the configuration of a command line freezes in a record."""
    return copy.deepcopy(_composed(words))


def make_run(
    results_dir: Path,
    config: Mapping[str, Any],
    result: Mapping[str, float] | None,
    state: str = "finished",
    device: str = "CPU",
    points: Sequence[tuple[int, Mapping[str, float]]] = (),
    files: Mapping[str, str] | None = None,
    digests: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """A record of a run that ended in a state; its directory.

    result: its row, none for a run without; points: by step; digests: of the data, by context.
    """
    mode, task = config["mode"], config["task"]["name"]
    model = re.sub(r"\W+", "_", config["model"]["name"])
    place = mode if mode in ("cost", "speed") else config["dataset"]["name"]
    content = {"device": device} if mode == "speed" else dict(digests or {})
    key = identity(config, content, {})
    with Record.open(config, results_dir, f"{task}/{place}/{model}", key) as record:
        read = [
            {"name": context, "digest": digest, "source": "here", "context": context}
            for context, digest in (digests or {}).items()
        ]
        experiment = f"{task}/{mode}" if mode in ("cost", "speed") else task
        noted = {"device": device, "mode": mode, "identity": record.identity, **(tags or {})}
        name = f"{model} seed{config.get('seed', 0)}"
        Presentation(experiment, name, dict(flatten(config)), noted, read).write(record.directory)
        record.begin()
        for step, values in points:
            record.log(step, values)
        if result is not None:
            record.log(points[-1][0] if points else 0, result)
            record.update(result=dict(result))
        record.update(state=state)
        for file, text in (files or {}).items():
            (record.directory / file).write_text(text)
        return record.directory


def train(folder: Path, *words: str, score: float | None = 0.4, **more: Any) -> Path:
    """A record of a training with RetinaNet on digits that reached a score, or none."""
    result = None if score is None else {**COST, "val/AP": score, "val/AP50": score + 0.1}
    return make_run(folder, settings(TASK, *words), result, **more)


def report(folder: Path, *words: str) -> list[Table]:
    """The tables of the records in a folder, as words typed ask for them."""
    options = parse([f"results_dir={folder}", *words])
    runs = select(load_runs(folder), options.where)
    return build_tables(runs, options, "report", "the command")


def read_result(directory: Path) -> dict[str, float]:
    """The row that a record holds, read without the report's own code."""
    return json.loads((directory / "status.json").read_text())["result"]


def write_page(folder: Path) -> Path:
    """The page of the report on `folder/results`, as the command writes it."""
    subprocess.run(
        [sys.executable, "-m", "pvt_bench.report", "formats=html"],
        cwd=folder, env=environment(), check=True, capture_output=True,
    )  # fmt: skip
    return folder / "results" / "tables" / "report.html"
