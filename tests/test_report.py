"""Measured beside published: joining, printing, and what may not be passed over."""

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pvt_bench.config import Gap, Report, data_dir
from pvt_bench.errors import InputError
from pvt_bench.report import published, tables
from pvt_bench.report.published import load_published

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


@pytest.mark.parametrize("path", sorted(data_dir("results").glob("published/*.csv")), ids=str)
def test_published_files_are_whole(path: Path) -> None:
    table = load_published(path.stem)
    assert len(table)
    assert table["source"].str.len().min() > 3


def test_measured_stands_beside_the_agreed_row(costs: Callable[[str], None]) -> None:
    costs(HEADER + ROWS)
    table = tables.compare("costs", LAYOUT, {"one": row(1.51, 2.04), "three": row(7, 8)})
    assert list(table.rows["label"]) == ["One*", "Two", "three"]
    first = table.rows.iloc[0]
    assert first["params_m"] == 1.51
    assert first["params_m_published"] == "1.5"
    assert first["params_m_difference"] == pytest.approx(0.01)
    assert table.cells(first)[2:5] == ["1.51", "1.5", "+0.01 (+0.7 %)"]
    assert math.isnan(table.rows.iloc[1]["gflops"])
    assert table.cells(table.rows.iloc[1])[2:5] == ["–", "3", "–"]
    assert table.cells(table.rows.iloc[2])[2:5] == ["7.00", "–", "–"]


@pytest.mark.parametrize(
    ("measured", "printed", "met"),
    [(1.82, "1.8", True), (1.87, "1.8", False), (100.9, "100", True), (101.1, "100", False)],
)
def test_a_cost_is_met_to_its_digit_or_to_a_hundredth(
    measured: float, printed: str, met: bool
) -> None:
    assert (
        tables.agrees("gflops", pd.Series({"gflops": measured, "gflops_published": printed})) == met
    )


def test_a_difference_is_never_passed_over(costs: Callable[[str], None], tmp_path: Path) -> None:
    costs(HEADER + ROWS)
    gaps = {"B/two": Gap(why="The stem is counted twice.", params_m=0.5)}
    layout = Report(**{**vars(LAYOUT), "gaps": gaps})
    measured = {"one": row(1.6, 2.0), "two": row(2.5, 4.0)}
    paths = tables.write(tables.compare("costs", layout, measured), tmp_path / "out")
    text = paths[0].read_text()
    assert "A, One*: differs by more than 1%, unexplained." in text
    assert "The stem is counted twice. Params (M): 2.50 +0.50 = 3.00, published 3." in text
    numbers = pd.read_csv(paths[1])
    assert list(numbers["params_m"]) == [1.6, 2.5]


def test_signs_of_markdown_are_escaped(costs: Callable[[str], None]) -> None:
    costs(HEADER + "A,one,One|two,1,2,x,yes,\n")
    assert "| One\\|two |" in tables.to_markdown(tables.compare("costs", LAYOUT, {}))


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
