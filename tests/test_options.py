"""Every key is explained: in the terminal, and on the committed page."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import environment

from pvt_bench import identity
from pvt_bench.config import explaining
from pvt_bench.config.choices import names_of
from pvt_bench.config.explaining import Key, sentences
from pvt_bench.config.schema import Mode
from pvt_bench.options import MARKDOWN, TOP, WHOLE, WIDTH, main, sections_of

ROOT = Path(__file__).parents[1]
GROUPS = [TOP, *explaining.groups()]
Inside = Callable[..., tuple[int, str, str]]


@pytest.fixture
def inside(capsys: pytest.CaptureFixture[str]) -> Inside:
    """Run the command in this process."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        return code, *capsys.readouterr()

    return run


def keys_of(group: str) -> list[Key]:
    return [key for section in sections_of(group, []) for key in section.keys]


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_has_a_sentence(group: str) -> None:
    keys = keys_of(group)
    assert keys
    assert [key.name for key in keys if len(key.sentence) < 5] == []


def test_every_group_has_a_sentence() -> None:
    assert set(explaining.group_sentences()) == {*explaining.groups(), *WHOLE}
    assert all(explaining.group_sentences().values())


def leaves(group: str, name: str) -> set[str]:
    """The keys that a file of conf/ sets."""
    flat = identity.flatten({group: explaining.content_of(group, name, [])})
    return {key for key, _ in flat if not key.endswith("_target_")}


@pytest.mark.parametrize("group", ["model", "task", "dataset", "schedule", "trainer", "launcher"])
def test_every_key_that_a_file_sets_is_explained(group: str) -> None:
    known = {key.name for key in keys_of(group)}
    for name in names_of(group, []):
        # What the arguments of a view are is up to the view.
        assert {
            key for key in leaves(group, name) if not key.startswith("task.view_options.")
        } <= known


def test_a_sentence_is_read_to_its_end() -> None:
    def owner() -> None:
        """First line.

        Args:
            one: begins here
                and ends there.
            two: on one line.

        three: of another indentation. two: not at the beginning.
        """

    found = sentences(owner, ["one", "two", "three", "absent"])
    assert found["one"] == "begins here and ends there."
    assert found["two"] == "on one line."
    assert found["three"].startswith("of another")
    assert "absent" not in found


def test_a_class_has_the_sentences_of_its_parents() -> None:
    class Parent:
        """Base.

        root: a folder.
        flip: of the parent.
        """

    class Child(Parent):
        """Child.

        flip: of the child.
        """

    assert sentences(Child, ["root", "flip"]) == {"root": "a folder.", "flip": "of the child."}


def test_the_page_is_what_the_command_writes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pvt_bench.options", MARKDOWN],
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    page = (ROOT / "docs" / "options.md").read_text()
    assert page == done.stdout, "python -m pvt_bench.options --markdown > docs/options.md"


def block(text: str, name: str) -> str:
    """What is printed below a key, on one line."""
    lines = text.split("\n")
    below = lines[lines.index(name) + 1 :]
    end = next((i for i, line in enumerate(below) if not line.startswith(" ")), len(below))
    return " ".join(" ".join(below[:end]).split())


def test_a_key_says_in_which_runs_it_counts(inside: Inside) -> None:
    code, shown, errors = inside(
        "schedule.lr", "trainer.workers", "freeze", "weights", "speed.size"
    )
    assert (code, errors) == (0, "")
    assert "Counts in: train." in block(shown, "schedule.lr")
    assert "Changes no result." in block(shown, "trainer.workers")
    assert "Counts in: all modes." in block(shown, "freeze.stages")
    assert "Counts in: train, test, by the file's content." in block(shown, "weights")
    assert "Counts in: speed." in block(shown, "speed.size")


@pytest.mark.parametrize("group", GROUPS)
def test_what_it_says_is_what_the_identity_takes(group: str, inside: Inside) -> None:
    _, shown, _ = inside(*([group] if group else []))
    for key in keys_of(group):
        said = block(shown, key.name)
        for mode in Mode:
            told = "all modes" in said or re.search(rf"Counts in:[\w, ]*\b{mode}\b", said)
            assert bool(told) == (mode in identity.role(key.name).modes), key.name


def test_defaults_of_files(inside: Inside) -> None:
    _, shown, _ = inside("launcher", "trainer", "results_dir")
    assert "Default: 1; 64 with launcher=slurm." in block(shown, "launcher.jobs")
    assert "Default: 1; 8 with trainer=ddp." in block(shown, "trainer.devices")
    assert "Default: $PVT_BENCH_RESULTS, else results." in block(shown, "results_dir")


def test_a_choice_is_shown_with_its_values(inside: Inside) -> None:
    _, shown, _ = inside("model=pvt_medium", "schedule=coco_retinanet_3x", "dataset=coco")
    assert "Default: [3, 4, 18, 3]." in block(shown, "model.depths")
    assert "Default: 36." in block(shown, "schedule.epochs")
    assert "Default: schedule.shorter_side, else 800." in block(shown, "dataset.shorter_side")


def test_a_word_of_a_run_asks_for_its_key(inside: Inside) -> None:
    assert inside("seed=3") == inside("seed")


@pytest.mark.parametrize("words", [[], ["model"], ["task"], ["dataset"], ["schedule"], ["report"]])
def test_it_fits_a_terminal(words: Sequence[str], inside: Inside) -> None:
    code, shown, _ = inside(*words)
    assert code == 0
    assert max(map(len, shown.splitlines())) <= WIDTH


UNKNOWN = {
    "trianer": "Did you mean trainer",
    "schedule.lrr": "Did you mean schedule.lr?",
    "lr": "Did you mean schedule.lr?",
    "model.sr_ratio": "Did you mean model.sr_ratios",
    "model=pvt_smal": "Did you mean pvt_small",
    "launcher=sbatch": "Choose one of: in_process, local, slurm.",
    "--markdwn": f"{MARKDOWN} alone",
}


@pytest.mark.parametrize("word", UNKNOWN)
def test_an_unknown_word_is_refused_with_what_is_near(word: str, inside: Inside) -> None:
    code, shown, errors = inside("seed", word)
    assert (code, shown) == (2, "")
    assert errors.startswith("error: ")
    assert UNKNOWN[word] in errors


def test_help_says_what_to_type(inside: Inside) -> None:
    code, shown, _ = inside("--help")
    assert code == 0
    assert "python -m pvt_bench.options trainer" in shown


def test_plain_groups_are_explained_without_torch() -> None:
    plain = [group for group in explaining.groups() if group not in ("model", "task", "dataset")]
    code = f"import sys, pvt_bench.options as o; o.main({plain}); print('torch' in sys.modules)"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert time.monotonic() - began < 10  # a second where nothing else runs


def test_a_file_of_the_user_counts_with_what_it_builds_on(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "launcher").mkdir()
    mine = tmp_path / "launcher" / "cluster.yaml"
    mine.write_text("defaults: [slurm]\npartition: gpu\n")
    code, shown, errors = inside("launcher=cluster", f"hydra.searchpath=[file://{tmp_path}]")
    assert (code, errors) == (0, "")
    assert "Default: gpu." in block(shown, "launcher.partition")
    assert "Default: 64." in block(shown, "launcher.jobs")


def test_a_class_of_the_user_is_explained_by_its_docstring(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_words").mkdir()
    (tmp_path / "my_words" / "__init__.py").write_text(
        "def net(width: int = 8, num_classes: int = 2, features: bool = False):\n"
        '    """Mine.\n\n    width: channels of all layers.\n    """\n'
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(
        "_target_: my_words.net\nname: mine\nweights: null\nwidth: 16\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PVT_BENCH_PACKAGES", "my_words")
    code, shown, errors = inside("model=mine", f"hydra.searchpath=[file://{tmp_path}/conf]")
    assert (code, errors) == (0, "")
    assert block(shown, "model.width").startswith("Channels of all layers. Type: a whole number.")
    assert "Default: 16." in block(shown, "model.width")
