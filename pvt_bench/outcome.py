"""The result of a run: how its row is shown on the screen and in MLflow."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pvt_bench.config.schema import Config, Mode
from pvt_bench.escaping import markdown, to_csv
from pvt_bench.names import run_name
from pvt_bench.screen import figure, say, show_row, show_rows

PARTS = ("backbone", "neck", "head")


@dataclass(frozen=True)
class Outcome:
    """Result of a run.

    row: metrics by name, scores as fractions; conditions: of a measurement of speed, or the
        classes and the size of the test images, at which a run's own network was counted.
    """

    config: Config
    directory: Path
    row: dict[str, float]
    conditions: dict[str, Any]


def description(outcome: Outcome, used: dict[str, Any]) -> str:
    """What the run was, with what, and its row, in Markdown.

    used: what `tracking.environment.environment` gives, with the device.
    """
    config = outcome.config
    figures = _headline(config, outcome.row)
    lengths = {"epochs": config.schedule.epochs, "steps": config.schedule.steps}
    length = next((f"{value} {unit}" for unit, value in lengths.items() if value is not None), "")
    facts = {
        "task": f"{config.task.name}, mode {config.mode}",
        "dataset": config.dataset.name,
        "schedule": f"{config.schedule.name}: {length}, batches of {config.schedule.batch_size}",
        "device": used["device"],
        "versions": f"torch {used['packages']['torch']}, Python {used['python']}",
        "commit": f"{used['commit']}{' with changes' if used['dirty'] else ''}",
        "record": str(outcome.directory),
    }
    if config.mode in (Mode.cost, Mode.speed):
        del facts["dataset"], facts["schedule"]
    if own := _own_cost(outcome):
        facts["own network"] = own
    shown = map(figure, figures.values())
    heads, values = " | ".join(figures), " | ".join(shown)
    rule = " | ".join(["---:"] * len(figures))
    lines = [f"- **{key}**: {markdown(value)}" for key, value in facts.items()]
    # The row comes first: the page folds the rest away.
    return "\n".join([f"| {heads} |", f"| {rule} |", f"| {values} |", "", *lines, ""])


def costs_csv(row: dict[str, float]) -> str:
    """The costs of the network and of its parts as a table, for MLflow's page."""
    columns, rows = _cost_table(row)
    return to_csv(pd.DataFrame(rows, columns=["part", *columns[1:]]), float_format="%.6g")


def show(outcome: Outcome, as_line: bool = False) -> None:
    """Print where the record is and the row, scores in hundredths, as the papers print them.

    as_line: of one cell of many, its name and its main figures.
    """
    config, row = outcome.config, outcome.row
    if as_line:
        figures = _headline(config, row).items()
        words = "  ".join(f"{name} {figure(value)}" for name, value in figures)
        say(f"{run_name(config)}: {words}")
        return
    say(f"record: {outcome.directory}")
    if config.mode == Mode.speed:
        _show_speed(outcome)
        return
    height, width = config.task.protocol.size
    note = (
        f"Params: millions, trainable. GFLOPs: multiply-adds counted once, at {height} x {width} "
        f"pixels with {config.task.protocol.num_classes} classes."
    )
    if config.mode == Mode.cost:
        show_rows(f"{config.task.name}, cost of {run_name(config)}", *_cost_table(row), note)
        return
    shown: dict[str, str | float | None] = {"model": run_name(config)}
    shown |= {"dataset": config.dataset.name, **_headline(config, row)}
    notes = [note, f"This run's own network, {own}."] if (own := _own_cost(outcome)) else [note]
    show_row(f"{config.task.name}", {**shown, "seconds": row["seconds"]}, "\n".join(notes))


def _headline(config: Config, row: dict[str, float]) -> dict[str, float]:
    if config.mode == Mode.speed:
        return {name.removeprefix("speed/"): value for name, value in row.items()}
    figures = {"params": row["cost/params_m"], "GFLOPs": row["cost/gflops"]}
    if config.mode == Mode.cost:
        return figures
    return figures | {name: 100 * row[f"val/{name}"] for name in config.task.headline}


def _own_cost(outcome: Outcome) -> str:
    """What the run's own network costs, in words; empty where that was not counted."""
    row, conditions = outcome.row, outcome.conditions
    if "cost/own_gflops" not in row or "num_classes" not in conditions:
        return ""
    height, width = conditions["size"]
    params, gflops = (
        f"{value:.1f}" if value >= 1 else f"{value:.2g}"
        for value in (row["cost/own_params_m"], row["cost/own_gflops"])
    )
    where = f"{conditions['num_classes']} classes at {height} x {width} pixels"
    return f"{where}: {params} M, {gflops} GFLOPs"


def _show_speed(outcome: Outcome) -> None:
    config, row = outcome.config, outcome.row
    height, width = config.speed.size or config.task.protocol.size
    note = (
        f"{height} x {width} pixels; median latency at batch 1 and its interquartile range; "
        "images/s at batch {batch_size}; {dtype} on {device}, {threads} threads, torch {torch}"
    )
    shown: dict[str, str | float | None] = {"model": run_name(config), **_headline(config, row)}
    show_row(f"{config.task.name}, speed", shown, note.format(**outcome.conditions))


def _cost_table(row: dict[str, float]) -> tuple[list[str], list[list[str | float | None]]]:
    columns = ["", "params", "all params", "GFLOPs"]
    names = ("params_m", "params_all_m", "gflops")
    rows: list[list[str | float | None]] = [
        [part, *(row[f"cost/{part}_{name}"] for name in names)]
        for part in PARTS
        if f"cost/{part}_gflops" in row
    ]
    rows.append(["total", *(row[f"cost/{name}"] for name in names)])
    if "cost/fvcore_gflops" in row:
        columns += ["GFLOPs by fvcore", "activations"]
        rows = [[*cells, None, None] for cells in rows]
        rows[-1][-2:] = [row["cost/fvcore_gflops"], row["cost/activations_m"]]
    return columns, rows
