"""The published tables' costs through the real command, against what is committed."""

import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command

from pvt_bench.config.folders import data_dir
from pvt_bench.report.__main__ import main

# One of each kind; --slow counts all.
KINDS = (
    "resnet18", "densenet121", "googlenet", "skresnet18", "mixed_link_105", "vit_small_patch16",
    "swin_tiny_patch4_window7_224", "t2t_vit_t_14", "pvt_small", "pvt_v2_b2_li",
)  # fmt: skip


COMMITTED = data_dir("results") / "tables"
PAGE = data_dir("results").parent / "docs" / "running.md"
TABLES = sorted(
    path.stem for path in data_dir("experiments").glob("table/*.yaml")
    if (COMMITTED / f"{path.stem}.csv").exists()
)  # fmt: skip


@pytest.mark.parametrize(
    ("table", "words"),
    [
        pytest.param("imagenet", (f"model={','.join(KINDS)}",), id="one of each kind"),
        *(pytest.param(table, (), id=table, marks=pytest.mark.slow) for table in TABLES),
    ],
)
def test_the_committed_costs_are_what_the_command_writes(
    table: str, words: tuple[str, ...], command: Command, results: Path
) -> None:
    done = command(f"table={table}", "mode=cost", *words, timeout=900)
    assert done.returncode == 0, done.stderr
    written, committed = (
        costs(folder / f"{table}.csv") for folder in (results / "tables", COMMITTED)
    )
    if words:
        assert {*written.index.get_level_values("model")} == {*KINDS}
    else:
        assert {*written.index} == {*committed.index}
    for figure in written:
        ours, theirs = written[figure], committed.loc[written.index, figure]
        pd.testing.assert_series_equal(ours, theirs, rtol=1e-3)
    assert "unexplained" not in (results / "tables" / f"{table}.md").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [("backbones", ("where=sweep=backbones", "name=backbones")), ("latency", ("table=latency",))],
)
def test_the_committed_scores_and_speeds_are_those_of_their_records(
    name: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    records = data_dir("results") / "records" / name
    place = (f"results_dir={records}", f"output_dir={tmp_path}", "formats=csv")
    assert main([*place, *words]) == 0
    written, committed = (folder / f"{name}.csv" for folder in (tmp_path, COMMITTED))
    assert written.read_text() == committed.read_text()


def test_the_costs_in_the_guide_are_what_the_command_prints(
    command: Command, results: Path
) -> None:
    lines = re.findall(r"^\| `\[([\d,]+)\]`.*\| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(), re.M)
    stated = {f"[{ratios}]": figures for ratios, *figures in lines}
    cells = [f"model.sr_ratios={','.join(stated)}", "model=pvt_small", "task=coco_retinanet"]
    done = command("-m", *cells, "mode=cost")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^ pvt_small sr_ratios=(\S+) +done +([\d.]+) +([\d.]+)", done.stdout, re.M)
    assert {ratios: figures for ratios, *figures in found} == stated
    (path,) = (results / "sweeps").glob("*/table.csv")
    exact = pd.read_csv(path)
    assert [f"{value:.1f}" for value in exact["params"]] == [params for _, params, _ in found]
    # The report has one more digit: rounded from the exact value as well, never from another's.
    assert main([f"results_dir={results}", "formats=md"]) == 0
    text = (results / "tables" / "report.md").read_text()
    shown = re.findall(
        r"^\| pvt_small \| \\\[(.+?)\\\] \| \**([\d.]+)\** \| \**([\d.]+)", text, re.M
    )
    reported = {f"[{ratios.replace(' ', '')}]": float(params) for ratios, params, _ in shown}
    assert reported == {
        cell.rpartition("=")[2]: float(f"{value:.2f}")
        for cell, value in exact.set_index("cell")["params"].items()
    }


def costs(path: Path) -> pd.DataFrame:
    """The rows of a table that have costs, by all that tells them apart."""
    table = pd.read_csv(path)
    figures = [name for name in ("params_m", "gflops") if name in table]
    names = list(table.columns[: table.columns.get_loc(figures[0])])
    return table.set_index(names)[figures].dropna(how="all")
