"""Charts that need more than the final numbers of runs: curves, classes, input sizes."""

import io
import math
from collections.abc import Iterator, Sequence

import pandas as pd

from pvt_bench.escaping import from_csv_cell
from pvt_bench.report.pictures.charts import Chart, Point, Series, main_score
from pvt_bench.report.pictures.curves import loss_curves
from pvt_bench.report.sources.loaded import Source
from pvt_bench.report.sources.runs import Runs
from pvt_bench.report.tables.groups import Run
from pvt_bench.report.tables.layouts import load_layout
from pvt_bench.report.tables.published import FIGURES, SCORES, as_number
from pvt_bench.report.tables.rows import Row, Table

# Rows that can be told apart in one picture, and classes in one of a page's height.
CLASS_ROWS, CLASSES = 5, 60


def run_charts(table: Table, source: Source, prefix: str = "") -> Iterator[Chart]:
    """Curves of the loss, and scores by class, of the best rows of a table."""
    score = main_score(table)
    if score is None:
        return
    best = [row for row in table.rows if row.values[score].n]
    best.sort(key=lambda row: -row.values[score].mean)
    yield from loss_curves(table, best, source, prefix)
    yield from _classes(table, best, source, prefix)


def size_charts(runs: Runs) -> Iterator[Chart]:
    """GFLOPs over the input size, for tasks whose cost was counted at several sizes."""
    table = runs.table
    keys = ["task.name", "model.name", "task.protocol.size"]
    costs = table[(table["mode"] == "cost") & table.get("cost/gflops", pd.Series()).notna()]
    if not {*keys} <= {*costs.columns}:
        return
    for task, of_task in costs.groupby("task.name"):
        by_model = of_task.groupby("model.name")["task.protocol.size"].nunique()
        swept = of_task[of_task["model.name"].isin(by_model[by_model > 1].index)]
        if swept.empty:
            continue
        newest = swept.sort_values("started").drop_duplicates(keys, keep="last")
        series = [
            Series(str(model), tuple(_size_points(rows)), line=True)
            for model, rows in newest.groupby("model.name")
        ]
        yield Chart(
            f"{task}-gflops-size",
            f"{task}: GFLOPs over the input size",
            "lines",
            "Input size (pixels of a side)",
            FIGURES["gflops"].heading,
            (*series, *_published_sizes(str(task), {s.name for s in series})),
            log=True,
        )


def _size_points(rows: pd.DataFrame) -> list[Point]:
    points = [
        Point(_side(row["task.protocol.size"]), row["cost/gflops"], link=row["link"])
        for _, row in rows.iterrows()
    ]
    return sorted(points, key=lambda point: point.x)


def _side(size: str) -> float:
    """Side of the square with as many pixels."""
    height, width = (int(part) for part in size.strip("[]").split(","))
    return math.sqrt(height * width)


def _published_sizes(task: str, models: set[str]) -> list[Series]:
    layout = load_layout("input_scale")
    if task not in layout.tasks:
        return []
    points = tuple(
        Point(_side(row["task.protocol.size"]), as_number(row["gflops"]), row["label"])
        for _, row in layout.rows.iterrows()
        if row["model"] in models and row["gflops"]
    )
    return [Series("published", points, published=True)] if points else []


def _classes(table: Table, rows: Sequence[Row], source: Source, prefix: str) -> Iterator[Chart]:
    """Scores by class, one mark per row; of many classes, those in which rows differ most."""
    columns, heading = {}, ""
    for row in rows[:CLASS_ROWS]:
        found = [_by_class(source, each.run) for each in row.origins if each.kind == "score"]
        present = [each for each in found if each is not None]
        if present:
            columns[row.label] = pd.concat(present, axis="columns").mean(axis="columns")
            heading = SCORES.get(str(present[0].name), str(present[0].name))
    if not columns:
        return
    scores = pd.DataFrame(columns).dropna(how="all") * 100
    spread = scores.max(axis="columns") - scores.min(axis="columns")
    shown = scores.loc[spread.sort_values(ascending=False, kind="stable").index[:CLASSES]]
    shown = shown.loc[shown.mean(axis="columns").sort_values(kind="stable").index]
    notes = []
    if len(scores) > CLASSES:
        notes.append(f"The {CLASSES} of {len(scores)} classes in which the rows differ most.")
    if len(rows) > CLASS_ROWS:
        notes.append(f"The best {CLASS_ROWS} rows of {len(rows)}.")
    yield Chart(
        f"{prefix}classes",
        f"{table.title}: {heading} by class",
        "bars",
        heading,
        "",
        tuple(_class_series(shown, str(name)) for name in shown),
        note=" ".join(notes),
    )


def _class_series(shown: pd.DataFrame, name: str) -> Series:
    marks = [
        Point(value, place, str(label))
        for place, (label, value) in enumerate(shown[name].items())
        if value == value
    ]
    return Series(name, tuple(marks))


def _by_class(source: Source, run: Run) -> "pd.Series[float] | None":
    """First score of each class, as a fraction."""
    text = source.read(run, "per_class.csv")
    if text is None:
        return None
    table = pd.read_csv(io.StringIO(text), dtype={"class": str}, keep_default_na=True)
    table["class"] = table["class"].map(from_csv_cell, na_action="ignore")
    table = table.dropna(subset=["class"]).drop_duplicates("class").set_index("class")
    return table.iloc[:, 0].astype(float)
