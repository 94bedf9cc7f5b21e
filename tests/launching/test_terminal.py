"""What a terminal shows of sweeps and of their end, at the widths that people have."""

import json
import re
import sys
from pathlib import Path

import pexpect
import pytest
from conftest import SMALL, Command, environment

from pvt_bench import screen, status

SEVEN = [
    ["pvt_small sr_ratios=[8,4,2,1] seed0", "done", 34.2, 285.8, 40.2, 53.6, 49.4, 49.5, 1182.3],
    ["pvt_small sr_ratios=[16,8,4,2] seed0", "failed", *[None] * 6, float("nan")],
]  # fmt: skip
HEADINGS = ["cell", "state", "params", "GFLOPs", "AP", "AP50", "AP75", "APs", "seconds"]


def open_terminal(columns: int, *words: str, term: str = "dumb") -> "pexpect.spawn[str]":
    """The command in a terminal of its own; `read` and `expect` have what it shows."""
    variables = {name: value for name, value in environment().items() if name != "COLUMNS"}
    return pexpect.spawn(
        sys.executable,
        ["-m", "pvt_bench", *words],
        dimensions=(40, columns),
        env=variables | {"TERM": term},
        encoding="utf-8",
        timeout=120,
    )


def states_in(results: Path) -> dict[str, str]:
    """State and error of each record by the beginning of its name."""
    found = {}
    for file in results.glob("runs/*/*/*/status.json"):
        held = json.loads(file.read_text())
        found[file.parent.name.partition("_depths")[0]] = f"{held['state']}: {held['error']}"
    return found


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_table_shows_each_figure_and_name_whole(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen.console, "width", columns)
    screen.show_rows("the sweep", HEADINGS, SEVEN)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= columns
    for value in SEVEN[0][2:]:
        assert re.search(rf"(?<!\d){value}(?!\d)", shown)
    for word in ["pvt_small", "sr_ratios=[16,8,4,2]", "failed", *HEADINGS]:
        assert word in shown
    assert "nan" not in shown


def test_a_second_ctrl_c_stops_a_sweep_within_a_step(results: Path) -> None:
    """The first is answered at once, though a step takes seconds; no cell is left as running."""
    terminal = open_terminal(
        80, "-m", "model=pvt_tiny,pvt_small", *SMALL, "task=coco_retinanet", "schedule.steps=40",
        "schedule.batch_size=64", "trainer=cpu", "trainer.workers=0", f"results_dir={results}",
        term="xterm",
    )  # fmt: skip
    terminal.expect(r"\[1/2\] pvt_tiny seed0")
    terminal.expect("1/40")
    terminal.sendintr()
    terminal.expect("Ctrl-C: stopping after this step, with a checkpoint; press it again")
    assert "2/40" not in terminal.before
    terminal.sendintr()
    terminal.expect("Ctrl-C again: stopping at once; the same command goes on")
    left = terminal.expect([pexpect.EOF, "stopped after step"])
    terminal.wait()
    assert left == 0
    assert terminal.exitstatus == 130
    assert states_in(results) == {
        "pvt_tiny": "interrupted: stopped at once",
        "pvt_small": "interrupted: stopped before it was started",
    }


def test_a_sweep_says_where_it_stands(results: Path) -> None:
    """Each cell has its number, all have an ETA, and nothing is told twice."""
    terminal = open_terminal(
        60, "-m", "model=pvt_tiny", "model.sr_ratios=[8,4,2,1],[4,4,2,1]", *SMALL, "trainer=cpu",
        "task=imagenet_classification", "schedule.steps=2", "schedule.batch_size=4",
        "trainer.workers=0", f"results_dir={results}",
    )  # fmt: skip
    shown = terminal.read()
    terminal.wait()
    assert terminal.exitstatus == 0
    assert "[1/2] pvt_tiny sr_ratios=[8,4,2,1] seed0\r\n" in shown
    assert re.search(
        r"\[2/2\] pvt_tiny sr_ratios=\[4,4,2,1\] seed0  0:\d\d:\d\d elapsed, ETA 0:\d\d:\d\d", shown
    )
    assert shown.count("dataset: digits") == 1
    assert shown.count("recipe: ") == 1
    assert shown.count("2 done") == 1
    assert "…" not in shown
    assert not re.search(r"\bnan\b", shown)
    logs = [file.read_text() for file in results.glob("runs/*/*/*/log.txt")]
    assert len(logs) == 2
    for log in logs:
        assert "dataset: digits" in log
        assert "attempt 1" in log
        assert re.search(r"training 2/2 .* elapsed, ETA 0:00:00", log)


def test_status_knows_single_runs_and_their_logs(
    command: Command, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "model=pvt_tiny", *SMALL, "task=imagenet_classification", "trainer=cpu",
        "trainer.workers=0", "schedule.batch_size=4", f"results_dir={results}",
    ]  # fmt: skip
    assert command(*words, "schedule.steps=2").returncode == 0
    assert command(*words, "mode=cost").returncode == 0
    assert command(*words, "schedule.steps=20", "schedule.lr=1e20").returncode == 1
    assert status.main([f"results_dir={results}"]) == 1
    shown = capsys.readouterr().out
    assert "1 failed, 2 done" in shown
    assert "There is no run" not in shown
    assert "The loss is not finite" in shown
    (log,) = re.findall(r": log (.*log\.txt)", shown)
    assert "The loss is not finite" in Path(log).read_text()
