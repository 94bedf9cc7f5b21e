"""A password in the address of the MLflow store is in the environment, and nowhere else."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from conftest import Command, wait
from mlflow import MlflowClient
from sweeping import COST, start
from test_mlflow_mirror import Server

from pvt_bench import status, sync
from pvt_bench.__main__ import main
from pvt_bench.errors import InputError
from pvt_bench.launching.sweep import DONE, look, read_sweeps
from pvt_bench.launching.watching import is_concluded
from pvt_bench.report.__main__ import main as report
from pvt_bench.tracking.addresses import VARIABLE, check_uri, explain_uri, reveal, without_password

SECRET = "hunter2planted"
ADDRESSES = {
    f"http://me:{SECRET}@host:5000": "http://me:***@host:5000",
    f"http://me:{SECRET}@{SECRET}@host": "http://me:***@host",
    f"https://{SECRET}@host/path": "https://***@host/path",
    f"http://:{SECRET}@host": "http://:***@host",
    f"postgresql://me:{SECRET}/{SECRET}?#@host/db": "postgresql://me:***@host/db",
    f"mysql+pymysql://me:{SECRET}@host/db?charset=utf8": "mysql+pymysql://me:***@host/db?charset=utf8",
    f"postgresql://host/db?user=me&password={SECRET}": "postgresql://host/db?user=me&password=***",
    f"http://host/?api_key={SECRET}&x=1": "http://host/?api_key=***&x=1",
    f"http://host/?access_Token={SECRET}": "http://host/?access_Token=***",
    f"mssql+pyodbc:///?odbc_connect={quote(f'PWD={SECRET}')}": "mssql+pyodbc:///?odbc_connect=***",
}
OPEN = [
    "http://host:5000/path",
    "sqlite:////home/a@b/mlflow.db",
    "postgresql://host/db?connect_timeout=10",
    "postgresql://host/db?passfile=/home/me/.pgpass&sslkey=/key",
]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_is_shown_of_an_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = without_password(address)
    assert shown == ADDRESSES[address]
    assert without_password(shown) == shown
    assert without_password(f'-m "tracking.uri={address}"') == f'-m "tracking.uri={shown}"'
    with pytest.raises(InputError, match="Export the whole address as MLFLOW_TRACKING_URI"):
        reveal(shown)
    monkeypatch.setenv(VARIABLE, address)
    assert reveal(shown) == address
    assert SECRET not in "".join(explain_uri(address, os.environ))


@pytest.mark.parametrize("address", OPEN)
def test_an_address_without_a_secret_stays(address: str) -> None:
    assert without_password(address) == address
    assert reveal(address) == address


def test_a_space_does_not_show_the_password() -> None:
    with pytest.raises(InputError, match="%20") as refused:
        check_uri(f"http://me:{SECRET} {SECRET}@host")
    assert SECRET not in str(refused.value)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.kill()


def assert_nowhere(folder: Path) -> None:
    """No file below the folder holds the secret, nor does its name."""
    for path in folder.rglob("*"):
        assert SECRET not in str(path)
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_the_password_is_written_nowhere(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The server lets everybody in; a real client sends it the password all the same."""
    results = tmp_path / "results"
    address = server.uri.replace("//", f"//me:{SECRET}@")
    shown = server.uri.replace("//", "//me:***@")
    words = [*COST, f"results_dir={results}"]
    # In this process, typed; the whole address is that of the environment from here on.
    start("model=lenet5", *words, f"tracking.uri={address}")
    assert os.environ[VARIABLE] == address
    # The same command as it was shown, and others that read the environment.
    start("model=resnet18", *words, f"tracking.uri={shown}", "launcher=local")
    start("model=resnet34", *words, "launcher=local", "launcher.detach=true")
    children = [each.cmdline() for each in psutil.Process().children(recursive=True)]
    sweeps, _ = read_sweeps(results)
    assert len(sweeps) == 3
    for sweep in sweeps:
        wait(lambda sweep=sweep: is_concluded(sweep, look(sweep)), sweep.name)
        assert {state.word for state in look(sweep)} == {DONE}
        assert sweep.uri == shown
    assert SECRET not in str(children)
    assert status.main([f"results_dir={results}"]) == 0
    assert sync.main([f"results_dir={results}", f"uri={address}"]) == 0
    assert (
        report(
            [f"results_dir={results}", "formats=md,html", f"tracking.uri={address}", "name=server"]
        )
        == 0
    )
    client = MlflowClient(server.uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert {run.data.tags.get("model") for run in runs} == {"lenet5", "resnet18", "resnet34", None}
    commands = {run.data.tags["command"] for run in runs if "command" in run.data.tags}
    assert any(f"tracking.uri={shown}" in each for each in commands)
    assert_nowhere(tmp_path)
    assert SECRET not in "".join(capfd.readouterr())
    # Without the environment nothing is lost, and what to type is said.
    monkeypatch.setenv(VARIABLE, "")
    assert sync.main([f"results_dir={results}"]) == 1
    assert "Export the whole address as MLFLOW_TRACKING_URI" in "".join(capfd.readouterr())


def test_the_command_hides_what_is_typed(command: Command, tmp_path: Path, results: Path) -> None:
    address, shown = (f"http://me:{each}@127.0.0.1:9" for each in (SECRET, "***"))
    done = command("-m", "model=lenet5", "seed=0,1", *COST, f"tracking.uri={address}")
    assert done.returncode == 0, done.stderr
    assert "export MLFLOW_TRACKING_USERNAME" in done.stdout
    assert f"MLflow at {shown} does not take the run" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert f"tracking.uri={shown}" in next(results.glob("sweeps/*/table.md")).read_text()
    assert_nowhere(tmp_path)


def test_what_is_shown_needs_its_password_when_it_is_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model=lenet5", *COST, "tracking.uri=http://me:***@host:5000"]
    monkeypatch.setattr(sys, "argv", ["pvt-bench", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "Export the whole address as MLFLOW_TRACKING_URI" in capsys.readouterr().err
