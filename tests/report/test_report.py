"""Measured beside published: joining, printing, and what may not be passed over."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pvt_bench.config.folders import data_dir
from pvt_bench.config.schema import Gap, Report
from pvt_bench.errors import InputError
from pvt_bench.report.formats.markdown import to_csv, to_markdown
from pvt_bench.report.tables import filling as tables
from pvt_bench.report.tables import gaps, published
from pvt_bench.report.tables.published import load_published
from pvt_bench.report.tables.rows import Row, Table, Value

HEADER = "section,model,label,params_m,gflops,source,agreed,note\n"
ROWS = (
    'A,one,One*,1.5,2.0,arXiv,yes,\nA,one,One*,1.4,,zoo,no,"other, counter"\nB,two,Two,3,4,x,yes,\n'
)
LAYOUT = Report(title="Costs", published="costs", columns=["params_m", "gflops"])


@pytest.fixture
def costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write `results/published/costs.csv` where the package looks for it."""
    (tmp_path / "published").mkdir()
    monkeypatch.setattr(published, "data_dir", lambda name: tmp_path)
    return lambda text: (tmp_path / "published" / "costs.csv").write_text(text) and None


def row(params: float, gflops: float) -> dict[str, float]:
    return {"cost/params_m": params, "cost/gflops": gflops}


def markdown(table: Table) -> str:
    return to_markdown([table], Path())


def printed(table: Table, row: Row) -> list[str]:
    return [cell.text for cell in table.cells(row)]


def runs(**rows: dict[str, float]) -> list[tuple[dict[str, str], dict[str, float]]]:
    return [({"model.name": model}, row) for model, row in rows.items()]


@pytest.mark.parametrize("path", sorted(data_dir("results").glob("published/*.csv")), ids=str)
def test_published_files_are_whole(path: Path) -> None:
    table = load_published(path.stem)
    assert len(table)
    assert table["source"].str.len().min() > 3


def test_measured_stands_beside_the_agreed_row(costs: Callable[[str], None]) -> None:
    costs(HEADER + ROWS)
    table = tables.compare("costs", LAYOUT, runs(one=row(1.51, 2.04), three=row(7, 8)))
    first, second, third = table.rows
    assert [row.texts[0] for row in table.rows] == ["One*", "Two", "three"]
    assert first.values["params_m"].mean == 1.51
    assert first.published["params_m"] == "1.5"
    assert first.difference("params_m") == pytest.approx(0.01)
    assert printed(table, first)[2:5] == ["1.51", "1.5", "+0.01 (+0.7 %)"]
    assert math.isnan(second.values["gflops"].mean)
    assert printed(table, second)[2:5] == ["–", "3", "–"]
    assert printed(table, third)[2:5] == ["7.00", "–", "–"]


def test_runs_of_one_model_are_told_apart(costs: Callable[[str], None]) -> None:
    costs(
        "section,model,label,schedule.name,AP,source,agreed,note\n"
        "A,one,One,1x,36.7,arXiv,yes,\nA,one,One,3x,39.8,arXiv,yes,\n"
    )
    layout = Report(title="AP", published="costs", columns=["AP"], keys=["schedule.name"])
    what = {"model.name": "one", "schedule.name": "3x"}
    table = tables.compare("costs", layout, [(what, {"val/AP": 0.4})])
    assert [printed(table, row)[2:5] for row in table.rows] == [
        ["1x", "–", "36.7"],
        ["3x", "40.0", "39.8"],
    ]


@pytest.mark.parametrize(
    ("figure", "measured", "printed", "met"),
    [
        ("gflops", 1.82, "1.8", True),
        ("gflops", 1.87, "1.8", False),
        ("gflops", 100.9, "100", True),
        ("gflops", 101.1, "100", False),
        ("params_m", 44.75, "44.7", True),
        ("params_m", 44.55, "44.7", False),
        ("params_m", 44.55, "", True),
    ],
)
def test_a_cost_is_met_to_its_digit_or_nearly(
    figure: str, measured: float, printed: str, met: bool
) -> None:
    row = Row(("", "one"), {figure: Value(measured, n=1)}, published={figure: printed})
    assert gaps.agrees(figure, row) == met


def test_seeds_of_a_published_row_are_one_row(costs: Callable[[str], None]) -> None:
    costs("section,model,label,AP,source,agreed,note\nA,one,One,36.7,arXiv,yes,\n")
    layout = Report(title="AP", published="costs", columns=["AP"])
    scores = [0.36, 0.37, 0.383]
    table = tables.compare("c", layout, [({"model.name": "one"}, {"val/AP": s}) for s in scores])
    (only,) = table.rows
    assert printed(table, only) == ["One", "one", "37.1 ± 1.2", "36.7", "+0.4", "3"]
    assert only.values["AP"].mean == pytest.approx(100 * np.mean(scores))
    assert only.values["AP"].deviation == pytest.approx(100 * np.std(scores, ddof=1))
    frame = table.frame()
    assert list(frame[["AP_n", "AP_published"]].iloc[0]) == [3, "36.7"]


def test_a_difference_is_never_passed_over(costs: Callable[[str], None]) -> None:
    costs(HEADER + ROWS)
    gaps = {"B/two": Gap(why="The stem is counted twice.", params_m=0.5)}
    layout = Report(**{**vars(LAYOUT), "gaps": gaps})
    measured = runs(one=row(1.6, 2.0), two=row(2.5, 4.0))
    table = tables.compare("costs", layout, measured)
    text = markdown(table)
    assert "A, One\\*: unexplained difference of Params (M)." in text
    assert "B, Two: unexplained" not in text
    assert "The stem is counted twice. Params (M): 2.50 +0.50 = 3.00, published 3." in text
    numbers = pd.read_csv(io.StringIO(to_csv([table])))
    assert list(numbers["params_m"]) == [1.6, 2.5]


def test_a_reason_that_does_not_close_the_difference_is_not_enough(
    costs: Callable[[str], None],
) -> None:
    costs(HEADER + ROWS)
    layout = Report(**{**vars(LAYOUT), "gaps": {"two": Gap(why="The stem.", params_m=0.4)}})
    text = markdown(tables.compare("costs", layout, runs(two=row(2.5, 4.0))))
    assert "B, Two: unexplained difference of Params (M)." in text


@pytest.mark.parametrize("path", sorted(data_dir("results").glob("tables/*.md")), ids=str)
def test_committed_tables_explain_every_difference(path: Path) -> None:
    text = path.read_text()
    assert "unexplained" not in text
    assert "## Notes" in text


def test_signs_of_markdown_are_escaped(costs: Callable[[str], None]) -> None:
    costs(HEADER + "A,one,One|two,1,2,x,yes,\n")
    assert "| One\\|two |" in markdown(tables.compare("costs", LAYOUT, []))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("gflops", "gflop") + ROWS, "unknown column gflop. Did you mean"),
        (HEADER.replace("label,", "") + ROWS, "lacks the columns label"),
        (HEADER + ROWS.replace("3,4", "3,4G"), "'4G' in gflops"),
        (HEADER + ROWS.replace("no,", "maybe,"), "'maybe' in agreed"),
        (HEADER + ROWS.replace("zoo,no", "zoo,yes"), "two agreed rows of One*"),
        (HEADER + ROWS.replace("arXiv", ""), "without section, model, label or source"),
    ],
)
def test_a_typo_in_published_numbers_fails(
    costs: Callable[[str], None], text: str, message: str
) -> None:
    costs(text)
    with pytest.raises(InputError, match=message.replace("*", r"\*")):
        load_published("costs")
