"""Published numbers: `results/published/*.csv`, one row per model of a paper's table.

Columns with a dot are configuration keys, which tell the runs of one model apart
(`schedule.name`); those of `FIGURES` are numbers. Rows whose `agreed` is yes are compared with; the
others keep what further sources print.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pvt_bench.config.folders import data_dir
from pvt_bench.errors import InputError, nearest

KEYS = ("section", "model", "label", "source", "agreed", "note")


@dataclass(frozen=True)
class Figure:
    """A column of a table.

    heading: as printed; metric: its name in records; factor: from the unit of records to the
    printed one; digits: after the point; better: max or min, empty where neither is.
    """

    heading: str
    metric: str
    factor: float = 1.0
    digits: int = 1
    better: str = "max"

    @property
    def kind(self) -> str:
        """Kind of figure: cost, speed or score."""
        first = self.metric.partition("/")[0]
        return first if first in ("cost", "speed") else "score"

    def show(self, value: float) -> str:
        """Format a value, which is in the printed unit."""
        return f"{value:.{self.digits}f}"


SCORES = {
    "top1": "Top-1",
    "top5": "Top-5",
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "APs": "APs",
    "APm": "APm",
    "APl": "APl",
    "mask_AP": "mask AP",
    "mask_AP50": "mask AP50",
    "mask_AP75": "mask AP75",
    "mIoU": "mIoU",
    "mAcc": "mAcc",
    "aAcc": "aAcc",
}
# Scores are fractions in records and hundredths in tables, as the papers print them.
FIGURES = {
    "params_m": Figure("Params (M)", "cost/params_m", digits=2, better="min"),
    "gflops": Figure("GFLOPs", "cost/gflops", digits=2, better="min"),
    "activations_m": Figure("Activations (M)", "cost/activations_m", better="min"),
    "latency_ms": Figure("Latency (ms)", "speed/latency_ms", better="min"),
    "images_per_s": Figure("Images/s", "speed/images_per_s"),
    "peak_memory_gb": Figure("Memory (GB)", "speed/peak_memory_gb", digits=2, better="min"),
    **{name: Figure(heading, f"val/{name}", 100.0) for name, heading in SCORES.items()},
}


def load_published(name: str) -> pd.DataFrame:
    """Read `results/published/<name>.csv`, all of it as text, as printed in the papers.

    Raises:
        InputError: there is no such file, or a heading, a number or a row that does not fit.
    """
    path = data_dir("results") / "published" / f"{name}.csv"
    if not path.is_file():
        names = sorted(each.stem for each in path.parent.glob("*.csv"))
        raise InputError(f"There are no published numbers {path.name}. {nearest(name, names)}")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    _check_headings(path, list(table.columns))
    for column in figures_of(table):
        for text in table[column]:
            _check_number(path, column, text)
    _check_rows(path, table)
    return table


def _check_headings(path: Path, columns: list[str]) -> None:
    if missing := [key for key in KEYS if key not in columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}.")
    for column in columns:
        if column not in KEYS and column not in FIGURES and "." not in column:
            known = [*KEYS, *FIGURES]
            raise InputError(f"{path} has an unknown column {column}. {nearest(column, known)}")


def figures_of(table: pd.DataFrame) -> list[str]:
    """Columns that hold numbers."""
    return [column for column in table.columns if column in FIGURES]


def as_number(text: str) -> float:
    """Number of a printed figure; NaN if empty."""
    return float(text) if text else float("nan")


def _check_number(path: Path, column: str, text: str) -> None:
    try:
        as_number(text)
    except ValueError:
        raise InputError(f"{path} has {text!r} in {column}, where a number must be.") from None


def _check_rows(path: Path, table: pd.DataFrame) -> None:
    wrong = sorted(set(table["agreed"]) - {"yes", "no"})
    if wrong:
        raise InputError(f"{path} has {wrong[0]!r} in agreed: expected yes or no.")
    agreed = table[table["agreed"] == "yes"]
    keys = [column for column in table.columns if "." in column]
    twice = agreed[agreed.duplicated(["section", "label", *keys])]
    if len(twice):
        section, label = twice.iloc[0][["section", "label"]]
        raise InputError(f"{path} has two agreed rows of {label} in {section}.")
    if (table[["section", "model", "label", "source"]] == "").any(axis=None):
        raise InputError(f"{path} has a row without section, model, label or source.")
