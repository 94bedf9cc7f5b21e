"""Rows of a published table that a run belongs to: same settings in all that counts."""

from collections.abc import Iterator, Mapping
from functools import cache

from pvt_bench.config.choices import names_of, own_dataset, read_choice
from pvt_bench.config.schema import Mode
from pvt_bench.identity import role
from pvt_bench.report.sources.cells import cell_settings
from pvt_bench.report.sources.runs import canonical
from pvt_bench.report.tables.layouts import Layout

SIZE = "task.protocol."
# Dataset of a run without dataset=.
BUILT_IN = "digits"

Settings = Mapping[str, str]


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
        others = ([*timed, "~recipe_on"], [*words[:2], f"dataset={BUILT_IN}"])
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
    # Weights count by what they are: see `_starts_alike`.
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
