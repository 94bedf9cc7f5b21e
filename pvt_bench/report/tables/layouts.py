"""A published table's layout: its rows, those without published numbers last."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd
import yaml
from omegaconf import OmegaConf

from pvt_bench.config.schema import Report, data_dir
from pvt_bench.errors import InputError, nearest
from pvt_bench.report.tables.published import load_published
from pvt_bench.report.tables.settings import schedule_name

UNPUBLISHED = "Without a published row"
# Between the values of a sweep, not between those of a list in it.
COMMA = re.compile(r",(?![^\[]*\])")


@dataclass(frozen=True)
class Layout:
    """A published table.

    tasks: that its rows are of; rows: the agreed published ones, then the cells of its sweep that
    have none, numbered, with `section`, `label`, `model`, the report's keys and figures as text.
    """

    name: str
    report: Report
    tasks: tuple[str, ...]
    rows: pd.DataFrame


def load_layout(name: str) -> Layout:
    """The layout of `experiments/table/<name>.yaml` with its published numbers.

    Raises:
        InputError: there is no such table.
    """
    folder = data_dir("experiments") / "table"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = [each.stem for each in folder.glob("*.yaml")]
        raise InputError(f"There is no table={name}. {nearest(name, names)}")
    content = yaml.safe_load(path.read_text())
    report = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Report), content["report"]))
    assert isinstance(report, Report)
    published = load_published(report.published)
    agreed = published[published["agreed"] == "yes"]
    keys = ["model", *report.keys]
    printed = {*agreed[keys].itertuples(index=False, name=None)}
    cells = [
        cell for cell in _cells(content, report) if tuple(cell[k] for k in keys) not in printed
    ]
    more = pd.DataFrame(cells, columns=keys)
    more = more.assign(section=UNPUBLISHED, label=more["model"])
    rows = pd.concat([agreed, more], ignore_index=True).fillna("")
    return Layout(name, report, _tasks(content, rows), rows)


def _cells(content: Mapping[str, Any], report: Report) -> Iterator[dict[str, str]]:
    """The model and the report's keys of each cell that the table's sweep has."""
    swept = content["hydra"]["sweeper"]["params"]
    values = [[each.strip() for each in COMMA.split(str(text))] for text in swept.values()]
    for chosen in product(*values):
        cell = dict(zip(swept, chosen, strict=True))
        task = cell.get("task") or _own_task(content)
        names = {
            "model": cell["model"],
            "task.name": task,
            "schedule.name": schedule_name(task, cell.get("schedule")),
        }
        # As a record has them: lists with spaces, None for null.
        plain = {key: str(yaml.safe_load(text)) for key, text in cell.items()}
        yield {key: names.get(key) or plain[key] for key in ("model", *report.keys)}


def _tasks(content: Mapping[str, Any], rows: pd.DataFrame) -> tuple[str, ...]:
    named = rows["task.name"] if "task.name" in rows else [_own_task(content)]
    return tuple(dict.fromkeys(named))


def _own_task(content: Mapping[str, Any]) -> str:
    named = [task for each in content.get("defaults", []) if (task := each.get("override /task"))]
    return str(named[0]) if named else ""
