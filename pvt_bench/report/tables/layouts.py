"""Layout of a published table: its columns and rows, those without published numbers last."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from omegaconf import OmegaConf

from pvt_bench.config.choices import chosen
from pvt_bench.config.command_line import on_own_data, split_cells
from pvt_bench.config.schema import Report, data_dir
from pvt_bench.errors import InputError, nearest
from pvt_bench.report.sources.cells import Settings, cell_settings
from pvt_bench.report.tables.published import load_published

UNPUBLISHED = "Without a published row"


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


def load_layout(name: str, report: Report | None = None) -> Layout:
    """Read the layout of `experiments/table/<name>.yaml` with its published numbers.

    report: its columns and notes, by default as the file has them.

    Raises:
        InputError: there is no such table.
    """
    folder = data_dir("experiments") / "table"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = [each.stem for each in folder.glob("*.yaml")]
        raise InputError(f"There is no table={name}. {nearest(name, names)}")
    report = report or _read_report(path)
    published = load_published(report.published)
    agreed = published[published["agreed"] == "yes"]
    keys = ["model", *report.keys]
    printed = {*agreed[keys].itertuples(index=False, name=None)}
    cells = list(_cells(name, report))
    own = [cell for cell in cells if tuple(cell[key] for key in keys) not in printed]
    more = pd.DataFrame(own, columns=keys)
    more = more.assign(section=UNPUBLISHED, label=more["model"])
    rows = pd.concat([agreed, more], ignore_index=True).fillna("")
    tasks = rows["task.name"] if "task.name" in rows else [cell["task"] for cell in cells]
    return Layout(name, report, tuple(dict.fromkeys(tasks)), rows)


def _read_report(path: Path) -> Report:
    content = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    report = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Report), content["report"]))
    assert isinstance(report, Report)
    return report


def _cells(name: str, report: Report) -> Iterator[dict[str, str]]:
    """Model, task and the report's keys of each cell of the table's sweep."""
    words = split_cells([f"table={name}"])
    # Without keys, the model alone names the row.
    values: list[Settings] = [{}] * len(words)
    if report.keys:
        values = cell_settings([on_own_data(each) for each in words])
    for each, settings in zip(words, values, strict=True):
        choices = chosen(each)
        keys = {key: settings[key] for key in report.keys}
        yield {"model": choices["model"], "task": choices["task"], **keys}
