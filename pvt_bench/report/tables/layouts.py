"""Layouts of published tables, and the rows of a layout that a run belongs to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd
import yaml
from omegaconf import OmegaConf

from pvt_bench.config.choices import chosen, names_of, own_dataset, read_choice
from pvt_bench.config.command_line import on_own_data, split_cells
from pvt_bench.config.folders import data_dir
from pvt_bench.config.schema import Mode, Report
from pvt_bench.errors import InputError, nearest
from pvt_bench.identity import role
from pvt_bench.report.sources.cells import cell_settings
from pvt_bench.report.sources.loaded import canonical
from pvt_bench.report.tables.published import load_published

UNPUBLISHED = "Without a published row"
SIZE = "task.protocol."

Settings = Mapping[str, str]


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


def load_layout(name: str, report: Report | None = None, words: Sequence[str] = ()) -> Layout:
    """Read the layout of `experiments/table/<name>.yaml` with its published numbers.

    report: its columns and notes, by default as the file has them; words: where else to search.

    Raises:
        InputError: there is no such table.
    """
    report = report or _read_report(name)
    published = load_published(report.published)
    agreed = published[published["agreed"] == "yes"]
    keys = ["model", *report.keys]
    printed = {*agreed[keys].itertuples(index=False, name=None)}
    cells = list(_swept([f"table={name}", *words], report))
    own = [cell for cell in cells if tuple(cell[key] for key in keys) not in printed]
    more = pd.DataFrame(own, columns=keys)
    more = more.assign(section=UNPUBLISHED, label=more["model"])
    rows = pd.concat([agreed, more], ignore_index=True).fillna("")
    tasks = rows["task.name"] if "task.name" in rows else [cell["task"] for cell in cells]
    return Layout(name, report, tuple(dict.fromkeys(tasks)), rows)


def is_own_data(run: Settings) -> bool:
    """Whether a run is scored on the data that its task was published for."""
    return run.get("dataset.name") == own_dataset(run["task.name"], run.get("task.dataset"))


def matching_rows(layout: Layout, run: Settings, kind: str) -> Iterator[int]:
    """Numbers of the rows whose cells have a run's settings, as far as its figures depend on them.

    run: its settings; kind: of its figures. A score counts only on the task's own data.
    """
    if kind == "score" and not is_own_data(run):
        return
    rows = layout.rows
    for number, row in rows[rows["model"] == run["model.name"]].iterrows():
        wanted = {key: canonical(row[key]) for key in layout.report.keys}
        tasks = [wanted["task.name"]] if "task.name" in wanted else layout.tasks
        if run["task.name"] in tasks and _is_of(run, kind, wanted):
            yield int(str(number))


def changed_model(run: Settings) -> dict[str, str]:
    """Settings of a run's model that neither its file nor a recipe gives it."""
    found: list[dict[str, str]] = []
    for own in _cells(run, "cost", None):
        changes = {key: run.get(key, "None") for key in _differences(run, own, "network")}
        found.append({key: text for key, text in changes.items() if key.startswith("model.")})
        if not found[-1]:
            break
    return min(found, key=len, default={})


def _read_report(name: str) -> Report:
    folder = data_dir("experiments") / "table"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = [each.stem for each in folder.glob("*.yaml")]
        raise InputError(f"There is no table={name}. {nearest(name, names)}")
    content = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    report = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Report), content["report"]))
    assert isinstance(report, Report)
    return report


def _swept(typed: Sequence[str], report: Report) -> Iterator[dict[str, str]]:
    """Model, task and the report's keys of each cell of the table's sweep."""
    words = split_cells(typed)
    # Without keys, the model alone names the row.
    values: Sequence[Settings] = [{}] * len(words)
    if report.keys:
        values = cell_settings([on_own_data(each) for each in words])
    for each, settings in zip(words, values, strict=True):
        choices = chosen(each)
        keys = {key: settings[key] for key in report.keys}
        yield {"model": choices["model"], "task": choices["task"], **keys}


def _is_of(run: Settings, kind: str, wanted: Settings) -> bool:
    counted = [key for key in wanted if kind == "score" or _counts(key, "network")]
    if any(run.get(key) != wanted[key] for key in counted) or not _starts_alike(run, kind, wanted):
        return False
    schedule = wanted.get("schedule.name")
    scored = kind == "score"
    if scored and run["mode"] != "test" and schedule and not _schedule(run["task.name"], schedule):
        scored = False  # Of a schedule without a file the name is all that can be compared.
    compared = run["mode"] if scored else "network"
    return any(
        not _differences(run, {**cell, **wanted}, compared) for cell in _cells(run, kind, schedule)
    )


def _cells(run: Settings, kind: str, schedule: str | None) -> Iterator[Settings]:
    """Settings that the cell of a run may have; none for a model or a task of the user's own.

    A cost may be counted with the settings for its own data or for the built-in data, which the
    papers' recipes for a training do not enter.
    """
    task, model = run["task.name"], run["model.name"]
    own = own_dataset(task, run.get("task.dataset"))
    choices = {"task": task, "model": model, "dataset": own}
    if not all(name in _names(group) for group, name in choices.items()):
        return
    words = [f"{group}={name}" for group, name in choices.items()]
    file = schedule and _schedule(task, schedule)
    timed = [*words, *([f"schedule={file}"] if file else [])]
    (first,) = cell_settings([timed])
    yield first
    if kind != "score":
        # The size at which a cost is counted is that of the table's schedule, whatever the data.
        size = {key: text for key, text in first.items() if key.startswith(SIZE)}
        others = ([*timed, "~recipe_on"], words[:2])
        yield from ({**cell_settings([other])[0], **size} for other in others)


def _differences(run: Settings, cell: Settings, compared: str) -> list[str]:
    """Keys that differ and count in a comparison.

    compared: network, or the mode of a run whose score is compared.
    """
    keys = [key for key in {**run, **cell} if _counts(key, compared)]
    return [key for key in keys if run.get(key, "None") != cell.get(key, "None")]


# Called for each key of each run.
@cache
def _counts(key: str, compared: str) -> bool:
    of = role(key)
    if compared == "network":
        return of.network
    # Weights are compared by their content, in `_starts_alike`.
    return of.row and Mode(compared) in of.modes


def _starts_alike(run: Settings, kind: str, wanted: Settings) -> bool:
    """Whether a training starts as the published one: detectors from ImageNet weights."""
    if kind != "score" or "model.weights" in wanted or run["mode"] == "test":
        return True
    return (run.get("model.weights", "None") != "None") == (run.get("task.features") == "True")


@cache
def _names(group: str) -> list[str]:
    return names_of(group, ())


@cache
def _schedule(task: str, name: str) -> str | None:
    """File of the task's schedule of that name, preferably the one for the task's own data."""
    own = f"{task}_{own_dataset(task, None)}"
    files = [own, *(file for file in _names("schedule") if file.startswith(f"{task}_"))]
    found = (file for file in files if _schedule_name(file) == name)
    return next(found, None)


def _schedule_name(file: str) -> str | None:
    content = read_choice("schedule", file, ())
    return content.get("schedule", content).get("name")
