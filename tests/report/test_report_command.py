"""`python -m pvt_bench.report`: its files, its exit codes, what it never does by half."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import environment
from forking import run_forked
from report_runs import COST, TASK, make_run, settings, train

from pvt_bench.launching.sweep import Cell, Sweep
from pvt_bench.report import __main__ as command
from pvt_bench.report.formats import files as writing

# Markup in Markdown, LaTeX or HTML.
HOSTILE = r"<script>alert(1)</script> | 100% _a_ *b* $x$ & #1 {y} ~^\z `c` [d](e)"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for model, scores in {"pvt_tiny": (0.3, 0.34), "pvt_small": (0.4, 0.42)}.items():
        for seed, score in enumerate(scores):
            points = [
                (step, {"train/loss": 1 / step, "train/images_seen": 4 * step}) for step in (1, 2)
            ]
            config = settings(TASK, f"model={model}", f"seed={seed}")
            files = {"per_class.csv": "class,AP,images\none,0.5,4\ntwo,0.25,3\n"}
            make_run(folder, config, {**COST, "val/AP": score}, points=points, files=files)
    return folder


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_forked(words, cwd, environment(), 120, "pvt_bench.report")


def test_the_command_prints_and_writes_everything(results: Path) -> None:
    done = run(cwd=results.parent)
    assert done.returncode == 0, done.stderr
    assert re.search(r"pvt_small +34\.22 +285\.80 +41\.0 ± 1\.4 +2", done.stdout)
    written = {path.name for path in (results / "tables").iterdir()}
    assert written == {"report.md", "report.csv", "report.tex", "report.html", "report"}
    pictures = {path.name for path in (results / "tables" / "report").iterdir()}
    stems = {"AP-gflops", "AP-params_m", "AP-seeds", "loss", "classes"}
    assert pictures == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    table = pd.read_csv(results / "tables" / "report.csv")
    assert sorted(table["AP"].round(6)) == [32.0, 41.0]
    assert list(table["AP_n"]) == [2, 2]
    text = (results / "tables" / "report.md").read_text()
    for link in re.findall(r"\]\((.*?)\)", text):
        assert (results / "tables" / link / "status.json").is_file()


def test_a_planted_wrong_score_ends_with_1(tmp_path: Path) -> None:
    words = (TASK, "model=resnet50", "dataset=coco", "model.weights=imagenet")
    digests = {"model.weights": "d"}
    make_run(tmp_path / "results", settings(*words), {"val/AP": 0.363}, digests=digests)
    typed = ("table=coco_retinanet", "check=true", "formats=md")
    done = run(*typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    make_run(tmp_path / "results", settings(*words, "seed=1"), {"val/AP": 0.263}, digests=digests)
    done = run(*typed, cwd=tmp_path)
    assert done.returncode == 1
    assert "ResNet50 resnet50 1x: AP is 31.3, published 36.3." in done.stderr
    assert "Traceback" not in done.stderr
    assert run(*typed, "tolerance=6", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("tabel=imagenet", "There is no key tabel. Did you mean table"),
        ("table=imagnet", "There is no table=imagnet. Did you mean imagenet"),
        ("published=imagnet", "Did you mean imagenet"),
        ("--table", "Unknown option --table"),
        ("mixed=perhaps", "mixed"),
        ("check=true", "check=true compares with published numbers"),
        ("tracking.url=x", "There is no key tracking.url"),
        ("tracking.uri=ftp://host/x", "MLflow cannot log there"),
        ("results_dir=nowhere", "There are no runs of pvt-bench in"),
    ],
)
def test_a_wrong_word_ends_with_2(
    results: Path, capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    words = [word] if word.startswith("results_dir") else [f"results_dir={results}", word]
    assert command.main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert not (results / "tables").exists()


def test_a_layout_takes_no_columns(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([f"results_dir={results}", "table=imagenet", "columns=AP"]) == 2
    assert "leave columns= out" in capsys.readouterr().err


def test_nothing_to_check_is_no_success(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([f"results_dir={results}", "table=imagenet", "check=true"]) == 2
    assert "there is no measured figure next to a published one" in capsys.readouterr().err


def test_a_directory_that_cannot_be_written_is_told_at_once(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "tables").write_text("a file")
    assert command.main([f"results_dir={results}"]) == 2
    printed = capsys.readouterr()
    assert "Use output_dir=PATH" in printed.err
    assert "drawing" not in printed.out


def test_never_half_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off at any point, each file is the old one or the new one."""
    (tmp_path / "a.md").write_text("old")

    def full_disk(path: Path, data: bytes) -> None:
        path.with_name(f".{path.name}.new").write_bytes(data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "replace", full_disk)
    with pytest.raises(writing.InputError, match="No space left on device"):
        writing.write_files(tmp_path, {"a.md": "new"})
    assert (tmp_path / "a.md").read_text() == "old"


def test_names_are_text_in_every_format(results: Path, tmp_path: Path) -> None:
    config = settings(TASK, "model=pvt_tiny", "mode=cost")
    config["model"]["name"] = HOSTILE
    make_run(tmp_path / "odd", config, COST)
    done = run("results_dir=odd", "formats=md,tex,html,csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "odd" / "tables"
    markdown = (folder / "report.md").read_text()
    assert "<script>" not in markdown
    row = next(line for line in markdown.splitlines() if line.startswith("| &lt;script"))
    cells = re.split(r"(?<!\\)\|", row)[1:-1]
    assert len(cells) == 3
    assert cells[0].strip() == (
        r"&lt;script&gt;alert(1)&lt;/script&gt; \| 100% \_a\_ \*b\* \$x\$ &amp; \#1 {y} \~^\\z "
        r"\`c\` \[d\](e)"
    )
    html = (folder / "report.html").read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    latex = (folder / "report.tex").read_text()
    assert (
        r"\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{} \textbar{} 100\% "
        r"\_a\_ *b* \$x\$ \& \#1 \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}z"
    ) in latex
    assert pd.read_csv(folder / "report.csv")["model.name"].iloc[0] == HOSTILE
    assert HOSTILE in done.stdout.replace("\n", "")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_the_latex_compiles(results: Path, tmp_path: Path) -> None:
    config = settings(TASK, "model=pvt_tiny", "mode=cost")
    config["model"]["name"] = HOSTILE
    make_run(results, config, COST)
    for words in ([], ["table=coco_retinanet"]):
        done = run(*words, "formats=tex", cwd=results.parent)
        assert done.returncode == 0, done.stderr
    (tmp_path / "paper.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}"
        "\\usepackage{graphicx}\\begin{document}\n\\input{results/tables/report.tex}\n"
        "\\input{results/tables/coco_retinanet.tex}\n\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_no_torch_and_no_mlflow_for_records(results: Path) -> None:
    code = (
        "import sys; from pvt_bench.report.__main__ import main; "
        f"code = main(['results_dir={results}']); print(code, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code_and_modules = done.stdout.splitlines()[-1].split()
    assert code_and_modules[0] == "0"
    assert not {"torch", "mlflow", "lightning"} & {*code_and_modules}


def test_fifty_runs_are_on_the_screen_in_seconds(tmp_path: Path) -> None:
    """Under 4 s on an idle machine; tests run beside others here."""
    for model in ("pvt_tiny", "pvt_small", "resnet18", "resnet50", "resnet101"):
        for seed in range(10):
            config = settings(TASK, f"model={model}", f"seed={seed}")
            make_run(tmp_path / "results", config, {**COST, "val/AP": 0.3 + seed / 100})
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pvt_bench.report"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "The best of a column" in line:
            break
    seconds = time.monotonic() - began
    process.communicate()
    assert process.returncode == 0
    assert seconds < 20


def test_the_page_of_a_sweep_holds_its_runs_alone(tmp_path: Path) -> None:
    """With those that another sweep has made before."""
    train(tmp_path, "model=pvt_tiny", tags={"sweep": "ratios"})
    shared = train(tmp_path, "model=pvt_small", tags={"sweep": "another"})
    train(tmp_path, "model=resnet18", tags={"sweep": "another"})
    cell = Cell("pvt_small", str(shared.relative_to(tmp_path)), "coco_retinanet", "train", ["AP"])
    Sweep("ratios", tmp_path, ["-m"], [cell]).write()
    words = ["where=sweep=ratios", "formats=html", "name=ratios"]
    assert command.main([f"results_dir={tmp_path}", *words]) == 0
    text = (tmp_path / "tables/ratios.html").read_text()
    assert "pvt_tiny" in text
    assert "pvt_small" in text
    assert "resnet18" not in text
