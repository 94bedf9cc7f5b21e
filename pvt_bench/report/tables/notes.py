"""Titles of tables, and notes on what their numbers mean."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from pvt_bench.report.sources.loaded import FINISHED
from pvt_bench.report.tables.protocols import Prepared, differing, is_setting
from pvt_bench.report.tables.published import Figure
from pvt_bench.report.tables.rows import Row


def title_of(protocol: Mapping[str, str]) -> str:
    """Title of a table: what all of its rows share."""
    task, mode = protocol.get("task.name", "All tasks"), protocol.get("mode")
    if mode == "cost":
        return f"{task}: cost at {_size(protocol)}"
    if mode == "speed":
        return f"{task}: speed on {protocol.get('device', 'unknown device')}"
    place = f" on {protocol['dataset.name']}" if "dataset.name" in protocol else ""
    if mode == "test":
        return f"{task}{place}, tested"
    schedule = protocol.get("schedule.name")
    length = f" ({protocol['length']})" if "length" in protocol else ""
    return f"{task}{place}" + (f", schedule {schedule}{length}" if schedule else "")


def explain_protocol(
    protocol: Mapping[str, str],
    figures: Mapping[str, Figure],
    joined: pd.DataFrame,
    rows: Sequence[Row],
) -> list[str]:
    """Explain what the figures mean and how they were measured."""
    kinds = {figure.kind for figure in figures.values()}
    notes = []
    if "cost" in kinds:
        size, classes = _size(protocol), protocol.get("task.protocol.num_classes")
        at = f" at {size} with {classes} classes" if size and classes else ""
        notes.append(
            "Parameters count what is trained, in millions; GFLOPs count a multiply-add "
            f"once,{at or ' at the size of the task'}, wherever the training took place."
        )
    if "speed" in kinds:
        notes.append(_speed(protocol, joined, rows))
    if any(figure.factor == 100 for figure in figures.values()):
        notes.append("Scores are in hundredths.")
    if any(value.n > 1 for row in rows for value in row.values.values()):
        notes.append("A ± is the sample deviation over n runs that differ in their seeds.")
    if len(rows) > 1:
        among = "" if all(row.is_complete for row in rows) else ", among the rows that finished,"
        notes.append(f"The best of a column{among} is bold.")
    return notes


def explain_rows(
    part: pd.DataFrame,
    shown: Sequence[str],
    prepared: Prepared,
    mixed: bool,
) -> list[str]:
    """Name settings that differ between rows or within one, though no column shows them."""
    notes = []
    protocol = [key for key in prepared.protocol({*part["kind"]}) if key != "mode"]
    apart = differing(part, protocol)
    if mixed and apart:
        notes.append(
            f"These rows do not share one protocol: they differ in {', '.join(apart)}. "
            "Compare them with that in mind."
        )
    settings = [key for key in prepared.params if is_setting(key) and key not in (*shown, *apart)]
    inside = _inside(part, settings, shown)
    if inside:
        notes.append(f"Some rows combine runs that differ in {', '.join(inside)}.")
    between = [key for key in differing(part, settings) if key not in inside]
    between = [key for key in between if not key.startswith("model.")]
    if between:
        notes.append(f"Besides the model, the rows differ in {', '.join(between)}.")
    return notes


def _inside(part: pd.DataFrame, settings: Sequence[str], shown: Sequence[str]) -> list[str]:
    varying = differing(part, settings)
    keys = [key for key in shown if key in part]
    if not varying or not keys:
        return []
    counts = part.groupby(keys, dropna=False)[varying].nunique(dropna=False).max()
    return [key for key in varying if counts[key] > 1]


def unfinished(rows: Sequence[Row]) -> list[str]:
    """Report rows of which only some runs have a result."""
    notes = []
    for row in rows:
        for kind in dict.fromkeys(origin.kind for origin in row.origins):
            states = Counter(origin.state for origin in row.origins if origin.kind == kind)
            count, finished = states.total(), states.pop(FINISHED, 0)
            if finished and states:
                which = ", ".join(f"{number} {state}" for state, number in states.items())
                notes.append(f"Of the {count} runs of {row.label}: {which}.")
    return notes


def _speed(protocol: Mapping[str, str], joined: pd.DataFrame, rows: Sequence[Row]) -> str:
    runs = {origin.identity for row in rows for origin in row.origins if origin.kind == "speed"}
    found = joined[joined["identity"].isin(runs)] if len(joined) else joined
    first = protocol if protocol.get("mode") == "speed" or found.empty else found.iloc[0]
    size = first.get("speed.size")
    size = first.get("task.protocol.size") if size in (None, "None") else size
    return (
        f"Latency is the median at batch 1 and images/s at batch {first.get('speed.batch_size')}, "
        f"{first.get('speed.dtype')}, at {_pixels(size)}, on {first.get('device')}."
    )


def _size(protocol: Mapping[str, str]) -> str:
    return _pixels(protocol.get("task.protocol.size"))


def _pixels(size: object) -> str:
    sides = str(size or "").strip("[]").split(", ")
    return f"{' x '.join(sides)} pixels" if len(sides) == 2 else "the size of the task"
