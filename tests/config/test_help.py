"""What --help, --version and completion with the tab key say, through the real commands."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import Command, environment, needs
from forking import run_forked

from pvt_bench.config.choices import names_of

SMALL_COMMANDS = ("status", "sync", "report", "preflight", "export")


def run(module: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_is_a_page(word: str, command: Command) -> None:
    done = command(word)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert "Hydra" not in lines[0]
    for name in (*SMALL_COMMANDS, "options"):
        assert f"python -m pvt_bench.{name}" in done.stdout
    groups = dict(re.findall(r"^  (\w+) +(\d+)  \w", done.stdout, re.MULTILINE))
    assert int(groups["model"]) == len(names_of("model", []))
    assert {"task", "dataset", "schedule", "trainer", "launcher", "recipe"} <= groups.keys()
    assert {"table", "sweep"} <= groups.keys()


def test_help_lists_the_choices_of_a_group(command: Command) -> None:
    done = command("--help", "model")
    assert done.returncode == 0
    assert done.stdout.split()[5:] == names_of("model", [])
    wrong = command("--help", "modle")
    assert wrong.returncode == 2
    assert wrong.stderr == "error: There is no group modle. Did you mean model?\n"


def test_help_counts_the_choices_of_a_users_folder(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("name: mine\n")
    done = command("--help", "model", f"hydra.searchpath=[file://{tmp_path}/conf]")
    assert " mine " in done.stdout.replace("\n", " ")


def test_what_is_asked_of_hydra_is_still_answered(command: Command) -> None:
    assert "--multirun" in command("--hydra-help").stdout
    printed = command("--cfg", "job", "model=pvt_tiny", "task=coco_retinanet").stdout
    assert printed.startswith("model:\n  name: pvt_tiny\n")
    assert "Config search path" in command("--info", "searchpath").stdout
    wrong = command("--cfg", "jop")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: argument --cfg/-c: invalid choice: 'jop'")


@pytest.mark.parametrize("name", SMALL_COMMANDS)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_the_help_of_every_command(name: str, word: str, tmp_path: Path) -> None:
    done = run_forked([word], tmp_path, environment(), 60, f"pvt_bench.{name}")
    assert done.returncode == 0, done.stderr
    assert f"python -m pvt_bench.{name}" in done.stdout
    assert "xit code" in done.stdout


@pytest.mark.parametrize("name", ["", *(f".{name}" for name in SMALL_COMMANDS)])
def test_the_version_of_every_command(name: str, tmp_path: Path) -> None:
    done = run_forked(["--version"], tmp_path, environment(), 60, f"pvt_bench{name}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"pvt-bench {version('pvt-bench')}\n"


@pytest.mark.parametrize("name", ["", *(f".{name}" for name in SMALL_COMMANDS)])
def test_help_imports_no_torch(name: str) -> None:
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('pvt_bench{name}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'mlflow', 'lightning'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_pager_that_closes_early(tmp_path: Path) -> None:
    """The reader is gone before the first line is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "pvt_bench", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


WRONG = {
    "nothing": ([], "needs the name of a shell"),
    "no such shell": (["install=tcsh"], "unknown shell"),
    "no such word": (["instal=bash"], "unknown word"),
    "a shell without python -m": (["install=fish"], "pvt-bench -sc install=fish | source"),
    "zsh without python -m": (["install=zsh"], 'eval "$(pvt-bench -sc install=zsh)"'),
    "a shell's own word": (["query=bash"], "shell's own use"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_word_for_completion(case: str, command: Command) -> None:
    words, expected = WRONG[case]
    done = command("-sc", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


def complete(bash: str, installed: str, typed: str, expected: str, directory: Path) -> str:
    """The screen of an interactive bash after the words, a tab, and what comes of it."""
    pid, terminal = pty.fork()
    if pid == 0:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        os.chdir(directory)
        os.execve(bash, [bash, "--norc", "--noprofile", "-i"], environment(PATH=path, PS1="$ "))
    screen = ""
    try:
        os.write(terminal, f"{installed}\n".encode())
        os.write(terminal, b"echo installed $?\n")
        screen = read_until(terminal, "installed 0")
        os.write(terminal, f"{typed}\t".encode())
        screen = read_until(terminal, expected)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)
    return screen


def read_until(terminal: int, expected: str, seconds: float = 30) -> str:
    screen, end = "", time.monotonic() + seconds
    while expected not in screen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            screen += os.read(terminal, 4096).decode(errors="replace").replace("\a", "")
    return screen


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("python -m pvt_bench model=pvt_s", "model=pvt_small"),
        ("python3 -m pvt_bench model=pvt_small task=coco_r", "task=coco_retinanet"),
        ("python -m pvt_bench model=pvt_small schedule.batch", "schedule.batch_size="),
        ("pvt-bench model=pvt_s", "model=pvt_small"),
        ("python letter", "python letter_of_mine.py"),
    ],
)
def test_bash_completes(typed: str, expected: str, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    needs(bash, "bash")
    program = typed.partition(" model")[0] if "pvt" in typed else "python -m pvt_bench"
    if program == "pvt-bench":
        needs(Path(sys.executable).with_name("pvt-bench").exists(), "the command pvt-bench")
    (tmp_path / "letter_of_mine.py").write_text("")
    installed = f'eval "$({program} -sc install=bash)"'
    assert expected in complete(str(bash), installed, typed, expected, tmp_path)


def test_bash_forgets_the_completion(tmp_path: Path) -> None:
    line = (
        'eval "$(python -m pvt_bench -sc install=bash)"; complete -p python; '
        'eval "$(python -m pvt_bench -sc uninstall=bash)"; complete -p python'
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", line], env=environment(PATH=path), capture_output=True, text=True
    )
    assert "_pvt_bench_complete python" in done.stdout
    assert "no completion specification" in done.stderr
