"""Fixtures that run the real command."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from forking import run_forked

# Several processes with several threads each wait for one another most of the time.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# This machine's own settings are not the tests'.
for variable in [name for name in os.environ if name.startswith(("PVT_BENCH", "MLFLOW"))]:
    del os.environ[variable]

# A shell that puts the tests into the background makes them ignore Ctrl-C, and with them whatever
# they start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A PVT that trains in seconds on two cores; everything else is as published.
SMALL = (
    "model.depths=[1,1,1,1]",
    "model.channels=[16,32,40,64]",
    "model.heads=[1,2,5,8]",
    "model.mlp_ratios=[2,2,2,2]",
)

Command = Callable[..., subprocess.CompletedProcess[str]]
# Puts a program in the place of one of SLURM's: it does something so many times, or always, and
# then hands over to the real one. Gives the file that counts its calls.
StandIn = Callable[..., Path]


def needs(part: object, name: str) -> None:
    """Skip a test whose part is missing on a user's machine; in CI a missing part is a failure."""
    if not part:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is missing, and CI must have it")
        pytest.skip(f"{name} is not installed")


def wait(reached: Callable[[], object], name: str, seconds: float = 120) -> None:
    """Wait until a condition holds; the test fails by its name after so many seconds."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"{name} did not come"
        time.sleep(0.05)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the tests that train for minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # They share a cluster, and so a worker, for minutes: the others must not have to wait for it.
    items.sort(key=lambda item: item.path.name != "test_slurm.py")
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="trains for minutes; --slow runs it"))


def environment(**more: str) -> dict[str, str]:
    """The environment without this machine's own settings of pvt-bench."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PVT_BENCH", "MLFLOW"))}
    return clean | {"COLUMNS": "200"} | more


def type_in(line: str, directory: Path) -> None:
    """Run a line that a message says to type, as a user does whose environment is activated."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(line, shell=True, cwd=directory, env=environment(PATH=path), check=True)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once for the workers of pytest-xdist together."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            begun = folder.with_name(f"{name}.begun")
            begun.mkdir()
            make(begun)
            begun.replace(folder)
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in scenes, written once for all tests that only read them."""
    from pvt_bench.datasets.digits.reader import write_digits

    return made_once(tmp_path_factory, "data", lambda at: write_digits(at / "digits")) / "digits"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh store, whose schema takes MLflow seconds to write."""
    from pvt_bench.tracking.parent import open_parents

    def make(at: Path) -> None:
        open_parents(f"sqlite:///{at}/mlflow.db", at, "", {}, [])

    return made_once(tmp_path_factory, "store", make) / "mlflow.db"


@pytest.fixture
def results(tmp_path: Path, empty_store: Path) -> Path:
    """A results_dir with nothing in it but an empty store."""
    directory = tmp_path / "results"
    directory.mkdir()
    shutil.copy(empty_store, directory)
    return directory


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `python -m pvt_bench ...` from an empty directory and wait for its end."""

    def run(*words: str, timeout: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        return run_forked(words, tmp_path, environment(**more), timeout)

    return run
