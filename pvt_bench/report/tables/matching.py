"""Which runs are those that a row of a published table is of."""

from collections.abc import Iterator, Mapping, Sequence

from pvt_bench.config.choices import own_dataset
from pvt_bench.report.sources.runs import canonical
from pvt_bench.report.tables.layouts import Layout
from pvt_bench.report.tables.settings import BUILT_IN, has_schedule, settings

# What a cost or a speed depends on; the places of weights count neither here nor there.
SIZE = "task.protocol."
NETWORK = ("model.", "task.network.", SIZE, "freeze.")
TESTED = ("model.", "task.", "dataset.")
SCORED = (*TESTED, "schedule.", "freeze.")
# The last is what a task is for, and older records lack it.
PLACES = ("model.weights", "dataset.root", "dataset.index", "task.dataset")

Settings = Mapping[str, str]


def is_own_data(run: Settings) -> bool:
    """Whether a run is scored on the data that its task was published for."""
    return run.get("dataset.name") == own_dataset(run["task.name"], run.get("task.dataset"))


def matching_rows(layout: Layout, run: Settings, kind: str) -> Iterator[int]:
    """The rows, by number, that a run is of: in all that its figures depend on.

    run: what it was set to; kind: of the figures that it is for, a score only on the own data.
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
    """What of a run's model is neither that of its file nor what a recipe makes of it."""
    changes = []
    for own in _variants(run, "cost", None):
        keys = _differences(run, own, ("model.",))
        changes.append({key: run.get(key, "None") for key in keys})
    return min(changes, key=len, default={})


def _is_of(run: Settings, kind: str, wanted: Settings) -> bool:
    # A cost is counted once for all schedules and weights.
    own = [key for key in wanted if key.startswith(NETWORK) and key not in PLACES]
    keys = list(wanted) if kind == "score" else own
    if any(run.get(key) != wanted[key] for key in keys) or not _starts_alike(run, kind, wanted):
        return False
    schedule = wanted.get("schedule.name")
    groups = _groups(run, kind, has_schedule(run["task.name"], schedule))
    return any(
        not _differences(run, {**expected, **wanted}, groups)
        for expected in _variants(run, kind, schedule)
    )


def _variants(run: Settings, kind: str, schedule: str | None) -> list[Settings]:
    """What the cell of a run may be set to: a cost may be counted with the settings for its own
    data or for the built-in data, which the papers' recipes for a training do not enter."""
    task, model = run["task.name"], run["model.name"]
    own = own_dataset(task, run.get("task.dataset"))
    choices = [(own, schedule, True)]
    if kind != "score":
        choices += [(own, schedule, False), (BUILT_IN, None, False)]
    found = [settings(task, model, *choice) for choice in choices]
    known = [each for each in found if each is not None]
    # The size at which a cost is counted is that of the table's schedule, whatever the data.
    protocol = {k: text for k, text in known[0].items() if k.startswith(SIZE)} if known else {}
    return [{**each, **protocol} for each in known]


def _groups(run: Settings, kind: str, known_schedule: bool) -> Sequence[str]:
    """The settings that must be equal."""
    if kind != "score":
        return NETWORK
    if run["mode"] == "test":
        return TESTED
    # Of a schedule without a file, and of its test, the name is all that can be compared.
    return SCORED if known_schedule else NETWORK


def _differences(run: Settings, expected: Settings, groups: Sequence[str]) -> list[str]:
    keys = [key for key in {**run, **expected} if key.startswith(tuple(groups))]
    return [
        key
        for key in keys
        if key not in PLACES and run.get(key, "None") != expected.get(key, "None")
    ]


def _starts_alike(run: Settings, kind: str, wanted: Settings) -> bool:
    """Whether a training starts as the published one: detectors from ImageNet weights."""
    if kind != "score" or "model.weights" in wanted or run["mode"] == "test":
        return True
    return (run.get("model.weights", "None") != "None") == (run.get("task.features") == "True")
