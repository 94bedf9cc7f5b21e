"""The published tables' costs through the real command, against what is committed."""

from pathlib import Path

import pandas as pd
from conftest import Command

from pvt_bench.config import data_dir


def test_the_committed_costs_are_what_the_command_writes(command: Command, tmp_path: Path) -> None:
    done = command("table=imagenet", "mode=cost", timeout=900)
    assert done.returncode == 0, done.stderr
    written, committed = (
        pd.read_csv(folder / "tables" / "imagenet.csv", keep_default_na=False)
        for folder in (tmp_path / "results", data_dir("results"))
    )
    assert list(written["label"]) == list(committed["label"])
    for figure in ("params_m", "gflops"):
        ours, theirs = (pd.to_numeric(each[figure]) for each in (written, committed))
        pd.testing.assert_series_equal(ours, theirs, rtol=1e-3)
    assert "unexplained" not in (tmp_path / "results" / "tables" / "imagenet.md").read_text()
