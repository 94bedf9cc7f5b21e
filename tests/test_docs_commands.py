"""Every command in README.md and docs/ can be typed: it runs here, composes, or has a test."""

import ast
import re
import shutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from conftest import SMALL, environment, made_once
from faulty_trees import write_plain_coco
from forking import run_forked
from hydra.errors import HydraException
from pages import DOCS, ROOT, Typed, commands, files_of

from pvt_bench.config.checks import check
from pvt_bench.config.command_line import compose_cells, compose_data, split_cells, typed_experiment
from pvt_bench.config.schema import Config
from pvt_bench.errors import InputError
from pvt_bench.options import MARKDOWN

# Each once, whatever the pages that have it.
COMMANDS = [*{each.text: each for page in reversed(DOCS) for each in commands(page)}.values()]
MAIN = ["model=pvt_small", "task=coco_retinanet"]


class Session(NamedTuple):
    """A user's directory, with the record of a training and of a cost in `results/`."""

    place: Path
    small: list[str]
    patch: pytest.MonkeyPatch

    @property
    def weights(self) -> Path:
        """The trained network."""
        (path,) = self.place.glob("results/runs/*/*/*/weights.safetensors")
        return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words that make the README's network train in seconds, on eight images."""
    root = made_once(tmp_path_factory, "few", lambda at: write_plain_coco(at / "few")) / "few"
    return [*SMALL, f"dataset.root={root}", "schedule.steps=2", "schedule.batch_size=2"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small: list[str], empty_store: Path) -> Path:
    """Where the README's first command was run, shortened, and a cost was counted."""

    def make(at: Path) -> None:
        (at / "results").mkdir()
        shutil.copy(empty_store, at / "results")
        _run([*MAIN, *small], at)
        _run(["model=pvt_tiny", "task=imagenet_classification", "mode=cost"], at)

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture
def session(
    finished: Path, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Session:
    """A copy of it, which is the working directory."""
    shutil.copytree(finished / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return Session(tmp_path, small, monkeypatch)


def _run(words: Sequence[str], place: Path, **variables: str) -> None:
    done = run_forked(words, place, environment(**variables), 600)
    assert done.returncode == 0, done.stdout + done.stderr


# Ways to test a command.


def run(typed: Typed, session: Session) -> None:
    """The command itself, as it stands."""
    _run(typed.words, session.place, **typed.variables)


def run_small(typed: Typed, session: Session) -> None:
    """The command itself on a small network and for two steps."""
    words = [word.replace("=PATH", f"={session.weights}") for word in typed.words]
    _run([*words, *session.small], session.place, **typed.variables)


def run_inside(typed: Typed, session: Session) -> None:
    """A small command in this process."""
    words = [word.replace("RUN/", f"{session.weights.parent}/") for word in typed.words]
    more = ["formats=md"] if typed.program.endswith("report") and "--help" not in words else []
    module = "pvt_bench.report.__main__" if typed.program.endswith("report") else typed.program
    main: Callable[[Sequence[str]], int] = import_module(module).main
    assert main([*words, *more]) == 0


def compose(typed: Typed, session: Session) -> None:
    """The configurations of a run or of the first and last cell of a sweep, checked."""
    for config in _composed(typed, session):
        check(config)


def compose_own(typed: Typed, session: Session) -> None:
    """The configuration with files that the page shows; what they name is not there."""
    for path, text in files_of(typed.page).items():
        (session.place / path).parent.mkdir(parents=True, exist_ok=True)
        (session.place / path).write_text(text)
    assert _composed(typed, session)


def _composed(typed: Typed, session: Session) -> list[Config]:
    for name, value in typed.variables.items():
        session.patch.setenv(name, value)
    own = f"file://{session.place}/my_conf"
    words = [re.sub(r"file://[^],]*my_conf", own, word) for word in typed.words]
    if typed_experiment(words):
        cells = split_cells(words)
        return [compose_cells(cells[place])[0].config for place in (0, -1)]
    return [cell.config for cell in compose_cells(words)]


def read_data(typed: Typed, session: Session) -> None:
    """The dataset and the task of a preflight."""
    assert compose_data(typed.words).task.name


def parse_mlflow(typed: Typed, session: Session) -> None:
    """MLflow's own parser takes the words, and the store that they name is there."""
    from mlflow.cli import cli

    name, *rest = typed.words
    found = cli.get_command(click.Context(cli), name)
    assert found, name
    found.make_context(name, rest)
    if "sqlite:///results/mlflow.db" in typed.words:
        assert (session.place / "results" / "mlflow.db").is_file()


def find_tests(typed: Typed, session: Session) -> None:
    """The tests that are named are there."""
    for word in typed.words:
        assert not word.startswith("tests") or (ROOT / word).exists(), word


def parse_file(typed: Typed, session: Session) -> None:
    """The script is in the repository, and is Python."""
    ast.parse((ROOT / typed.words[0]).read_text())


class Rule(NamedTuple):
    """How the commands are tested that a pattern finds in their text.

    way: what tests one, or the tests that run it, if any. reason: why not as it stands, if not.
    """

    pattern: str
    way: Callable[[Typed, Session], None] | tuple[str, ...]
    reason: str = ""


# The first that fits counts.
RULES = (
    Rule(MARKDOWN, ("test_the_page_is_what_the_command_writes",), "takes the page's place"),
    Rule(r"[<>]|\.\.\.|\b(NAME|GROUP|KEY|VALUE)\b", (), "stands for many"),
    Rule(
        r"\bpip install\b|-m venv\b",
        ("test_the_wheel_runs_from_an_empty_directory",),
        "installing takes minutes",
    ),
    Rule(r"(^|/)pytest\b", find_tests, "it would start the tests from a test"),
    Rule(r"^(source|export|cd|git) ", (), "no command of the project"),
    Rule(r"^mlflow ", parse_mlflow, "test_mlflow_page.py opens it in a browser"),
    Rule(r"^python (benchmarks|tests)/", parse_file, "takes minutes"),
    Rule(r"report tracking\.uri=http", ("test_report_runs.py",), "needs a server"),
    Rule(
        r"status sweep=",
        ("test_status_of_a_run_at_work_and_of_one_that_died",),
        "the sweep takes minutes",
    ),
    Rule(r"pvt_bench\.preflight\b(?!.*--help)", read_data, "the data is not there"),
    Rule(r"pvt_bench\.(report|status|sync|export|options|preflight)\b", run_inside),
    Rule(r"-sc install=", ("test_bash_completes",), "its lines are for a shell"),
    Rule(
        r"^python -m pvt_bench$", ("test_a_bare_command_shows_the_first_one_to_run",), "exit code 2"
    ),
    Rule(r"pvt_bench( .*)? (--help|--version|help|--cfg|-h|-c)\b", run),
    Rule(r"my_conf", compose_own, "test_own_dataset.py and others run such packages"),
    Rule(r"mode=test\b", run_small, "trains for two steps"),
    Rule(r"^python -m pvt_bench model=\w+ task=\w+$", run_small, "takes minutes"),
    Rule(r"pvt_bench (?!.*\b(table|sweep|-m)\b).*mode=cost\b", run),
    Rule(r"(\bpvt_bench|^pvt-bench) ", compose, "takes hours, or needs GPUs, SLURM or real data"),
)


def rule_of(typed: Typed) -> Rule:
    """The rule for a command; the test fails where there is none."""
    text = typed.text.replace(".venv/bin/", "")
    found = next((rule for rule in RULES if re.search(rule.pattern, text)), None)
    assert found, f"{typed.page}: no rule says how to test: {typed.text}"
    return found


@pytest.mark.parametrize("typed", COMMANDS, ids=lambda typed: f"{typed.page}: {typed.text}")
def test_every_command_can_be_typed(typed: Typed, request: pytest.FixtureRequest) -> None:
    way = rule_of(typed).way
    if isinstance(way, tuple):
        for name in way:
            tests = [*(ROOT / "tests").rglob("*.py")]
            assert any(name in (path.name, *_tests_in(path)) for path in tests), name
    else:
        way(typed, request.getfixturevalue("session"))


def _tests_in(path: Path) -> list[str]:
    return re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)


def test_a_command_without_a_rule_fails() -> None:
    unknown = Typed("README.md", "python -m other_bench x", {}, "other_bench", ["x"])
    with pytest.raises(AssertionError, match="no rule"):
        rule_of(unknown)


def test_every_page_with_commands_is_read() -> None:
    assert {"README.md", "docs/sweeps.md", "docs/report.md", "docs/datasets.md"} <= {
        typed.page for typed in COMMANDS
    }


@pytest.mark.parametrize("word", ["model=pvt_smal", "trainer.devces=2", "-x"])
def test_a_command_with_a_wrong_word_would_be_found(word: str, session: Session) -> None:
    typed = Typed("", "", {}, "pvt_bench", [*MAIN, word])
    with pytest.raises((InputError, HydraException)):
        compose(typed, session)
