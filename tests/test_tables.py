"""The published tables' costs through the real command, against what is committed."""

from pathlib import Path

import pandas as pd
import pytest
from conftest import Command

from pvt_bench.config import data_dir

# One of each kind; --slow counts all.
KINDS = (
    "resnet18", "densenet121", "googlenet", "skresnet18", "mixed_link_105", "vit_small_patch16",
    "swin_tiny_patch4_window7_224", "t2t_vit_t_14", "pvt_small", "pvt_v2_b2_li",
)  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [(f"model={','.join(KINDS)}",), pytest.param((), marks=pytest.mark.slow)],
    ids=["one of each kind", "all"],
)
def test_the_committed_costs_are_what_the_command_writes(
    words: tuple[str, ...], command: Command, results: Path
) -> None:
    done = command("table=imagenet", "mode=cost", *words, timeout=900)
    assert done.returncode == 0, done.stderr
    written, committed = (
        pd.read_csv(folder / "tables" / "imagenet.csv").set_index(["section", "label", "model"])
        for folder in (results, data_dir("results"))
    )
    counted = written.dropna(subset="gflops")
    assert {*counted.index.get_level_values("model")} == {
        *(KINDS if words else committed.index.get_level_values("model"))
    }
    for figure in ("params_m", "gflops"):
        ours, theirs = counted[figure], committed.loc[counted.index, figure]
        pd.testing.assert_series_equal(ours, theirs, rtol=1e-3)
    assert "unexplained" not in (results / "tables" / "imagenet.md").read_text()
