"""Text of others is text in every medium: neither markup, nor escape codes, nor formulas."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import environment
from forking import run_forked
from report_runs import COST, TASK, make_run, settings

from pvt_bench import commands, escaping, screen
from pvt_bench.escaping import csv_cell, from_csv_cell, visible
from pvt_bench.launching import watching
from pvt_bench.launching.jobs import Job
from pvt_bench.launching.sweep import FAILED, Cell, State, Sweep
from pvt_bench.report.formats.files import link
from pvt_bench.tasks.charts import draw_confusion
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.record import Record

# Markup of rich, an emoji of its, a formula, tags, a fence of Markdown, a formula of matplotlib
# that is none, codes of a terminal in seven and in eight bits, text turned around.
HOSTILE = (
    "=1+2 [/some/path:545] [bold]:bug: </script><b> | ``x`` $\\frac$ \x1b[31m\x9b31m \u202etxt.exe"
)
SEEN = HOSTILE.translate({0x1B: "\\x1b", 0x9B: "\\x9b", 0x202E: "\\u202e"})
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\x9b31m\x07\r", "a\\x9b31m\\x07\\r"),
        ("a\u202eb\u2066\u200b\ufeff\u2028", "a\\u202eb\\u2066\\u200b\\ufeff\\u2028"),
        (os.fsdecode(b"caf\xe9"), "caf\\udce9"),
        ("two\nlines\tand", "two\nlines\tand"),
        ("naïve 猫 می\u200cخواهم 👩\u200d🚀", "naïve 猫 می\u200cخواهم 👩\u200d🚀"),
    ],
)
def test_what_is_not_seen_becomes_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+2", "'=1+2"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" \t=1", "' \t=1"),
        ("＝1", "'＝1"),
        ("-0.3", "-0.3"),
        ("+1e3", "+1e3"),
        ("pvt-small", "pvt-small"),
        ("'quoted'", "'quoted'"),
    ],
)
def test_a_spreadsheet_calculates_no_text(text: str, cell: str) -> None:
    assert csv_cell(text) == cell
    assert from_csv_cell(cell) == text


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("- a", "\\- a"), ("---", "\\---"), ("1. a", "1\\. a"), ("-0.3", "-0.3"), ("1.5", "1.5"),
        ("a\n# b", "a \\# b"),
    ],
)  # fmt: skip
def test_a_text_begins_no_list_and_no_rule(text: str, markdown: str) -> None:
    assert escaping.markdown(text) == markdown


def test_code_of_markdown_ends_where_the_text_ends() -> None:
    assert escaping.markdown_code("a b") == "`a b`"
    assert escaping.markdown_code("a=`b``c`") == "``` a=`b``c` ```"


@pytest.mark.parametrize(("text", "latex"), [("[4,2] [x]", "{[}4,2] [x]"), ("*a", "{*}a")])
def test_a_text_of_latex_is_no_option_of_the_row_before(text: str, latex: str) -> None:
    assert escaping.latex(text) == latex


def state() -> State:
    cell = Cell(HOSTILE, "runs/a", "coco_retinanet", "train", ["AP"])
    return State(cell, "failed", f"RuntimeError: {HOSTILE}", {}, Job())


def test_a_sweeps_table_shows_hostile_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen.console, "width", 400)
    sweep = Sweep(f"{HOSTILE.replace('/', '')}", tmp_path, [f"model={HOSTILE}"], [state().cell])
    watching.show(sweep, [state()])
    printed = capsys.readouterr().out
    assert f"RuntimeError: {SEEN}" in printed
    assert not UNSEEN.search(printed)
    text = watching.to_markdown(sweep, [state()])
    row = text.splitlines()[-1]
    assert re.split(r" (?<!\\)\| ", row)[1].strip() == "failed"
    assert "\\[/some/path:545\\]" in row
    assert "</script>" not in row
    assert f"```python -m pvt_bench model={SEEN}```" in text
    assert not UNSEEN.search(text)
    sweep.directory.mkdir(parents=True)
    watching.write(sweep, [state()])
    table = pd.read_csv(sweep.directory / "table.csv")
    assert table["cell"].tolist() == [f"'{SEEN}"]


def test_lines_warnings_and_bars_show_hostile_texts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen.say(HOSTILE)
    screen.warn(HOSTILE)
    assert capsys.readouterr().out == f"{SEEN}\nwarning: {SEEN}\n"
    on_terminal = screen.Console(
        file=io.StringIO(), force_terminal=True, width=400, markup=False, emoji=False,
        color_system=None,
    )  # fmt: skip
    monkeypatch.setattr(screen, "console", on_terminal)
    with screen.progress_bar(HOSTILE, 1) as bar:
        bar.note = HOSTILE
        bar.advance()
    assert on_terminal.file.getvalue().count(SEEN) >= 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", [FloatingPointError, ValueError])
def test_an_error_sends_the_terminal_no_codes(
    kind: type[Exception], full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.report(kind(HOSTILE), full) == commands.FAILED
    printed = capsys.readouterr().err
    assert SEEN in printed
    assert not UNSEEN.search(printed)


def test_a_report_shows_hostile_names(tmp_path: Path) -> None:
    """In a folder whose name is markup, with a class and a model that have hostile names."""
    folder = tmp_path / "<b>[/a] \x1b[31m"
    for model in (HOSTILE, "pvt_tiny"):
        config = settings(TASK, "model=pvt_tiny")
        config["model"]["name"] = model
        classes = pd.DataFrame({"class": [HOSTILE, "cat"], "AP": [0.5, 0.25], "images": [4, 3]})
        files = {"per_class.csv": escaping.to_csv(classes)}
        make_run(folder, config, {**COST, "val/AP": 0.4}, files=files)
    words = (f"results_dir={folder}", f"output_dir={tmp_path}", "formats=md,csv,tex,html,svg")
    done = run_forked(words, tmp_path, environment(COLUMNS="400"), 120, "pvt_bench.report")
    assert done.returncode == 0, done.stderr
    assert SEEN in done.stdout
    assert not UNSEEN.search(done.stdout)
    texts = {path.suffix: path.read_text() for path in tmp_path.glob("report.*")}
    for text in texts.values():
        assert not UNSEEN.search(text)
    assert "\\[bold\\]:bug: &lt;/script&gt;&lt;b&gt; \\|" in texts[".md"]
    assert texts[".html"].count("</script>") == 2
    assert "\\\\u202etxt" in texts[".html"]
    assert r"\textbackslash{}x1b[31m" in texts[".tex"]
    assert f"'{SEEN}" in pd.read_csv(tmp_path / "report.csv")["model.name"].tolist()
    assert list((tmp_path / "report").glob("classes*.svg"))


def test_a_confusion_matrix_has_names_that_are_no_formulas(tmp_path: Path) -> None:
    draw_confusion(tmp_path / "a.png", [HOSTILE, "$\\frac$"], np.eye(2, dtype=np.int64))
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_mlflow_takes_hostile_texts(results: Path) -> None:
    from mlflow import MlflowClient

    odd = HOSTILE + os.fsdecode(b"\xe9")
    uri = f"sqlite:///{results}/mlflow.db"
    datasets = [{"name": odd, "digest": "d", "source": odd, "context": "training"}]
    with Record.open({"seed": 0}, results, "coco_retinanet/digits/pvt", "0123456789") as record:
        record.begin()
        params, tags = {"model.$x": odd, "seed": 0}, {"sweep": odd}
        mirror = Mirror(record, uri, Presentation("coco_retinanet", odd, params, tags, datasets))
        mirror.start()
        mirror.describe(odd)
        mirror.finish("finished")
        assert not mirror.behind
        run = MlflowClient(uri).get_run(record.status["mlflow"]["run_id"])
    shown = f"{SEEN}\\udce9"
    assert run.data.params == {"model._x24_x": shown, "seed": "0"}
    assert [run.info.run_name, run.data.tags["sweep"]] == [shown, shown]
    assert run.data.tags["mlflow.note.content"] == shown
    assert run.inputs.dataset_inputs[0].dataset.name == shown


def test_a_text_that_is_no_address_is_no_link(tmp_path: Path) -> None:
    assert link("http://[x", tmp_path) == ""


def test_the_table_of_a_sweep_takes_halves_of_characters(tmp_path: Path) -> None:
    cell = Cell("a\udcff", "runs/a", "e", "train", ["AP"])
    state = State(cell, FAILED, "no file b\udcff", {}, Job())
    sweep = Sweep("s", tmp_path, ["-m"], [cell])
    sweep.directory.mkdir(parents=True)
    assert "b\\udcff" in watching.write(sweep, [state])[1].read_text()
