"""The mirror agrees with the record, point by point, whatever happens to processes and servers."""

import json
import logging
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from forking import LIBRARIES

from pvt_bench.errors import InputError
from pvt_bench.tracking.addresses import (
    check_uri,
    choose_uri,
    default_uri,
    explain_uri,
    sqlite_file,
)
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.record import Record

EXPERIMENT = "coco_retinanet"
LOSS = "train/loss"


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def open_record(results_dir: Path, seed: int = 0, **options) -> Record:
    record = Record.open(
        {"seed": seed}, results_dir, f"coco_retinanet/digits/pvt-{seed}", f"{seed:010}", **options
    )
    record.begin()
    return record


def mirror_of(record: Record, uri: str, params: dict | None = None, **options) -> Mirror:
    params = {"model": "pvt_small"} if params is None else params
    shown = Presentation(EXPERIMENT, "pvt_small seed0", params, {"mode": "train"})
    return Mirror(record, uri, shown, **options)


def log(record: Record, steps: range) -> None:
    for step in steps:
        record.log(step, {LOSS: 1 / step})


def runs_in(uri: str) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return client.search_runs([experiment.experiment_id])


def history(uri: str, run_id: str, metric: str = LOSS) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    points = MlflowClient(uri).get_metric_history(run_id, metric)
    return sorted((point.step, point.value) for point in points)


def expected(steps: range) -> list[tuple[int, float]]:
    return [(step, 1 / step) for step in steps]


def warnings_in(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("pvt_bench")]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A real tracking server on loopback that can die and come back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("a") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True, cwd=self.folder
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.2)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        except OSError:
            return False


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////a/mlflow.db",
        "sqlite:///results/mlflow.db",
        "http://host:5000",
        "https://user:secret@host/mlflow",
        "postgresql+psycopg2://user:secret@host/mlflow",
    ],
)
def test_usable_addresses_pass(uri):
    check_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///a/mlruns",
        "./mlruns",
        "mlruns",
        "",
        "ftp://host/a",
        "http:/host:5000",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_other_addresses_are_refused_with_what_to_type(uri):
    with pytest.raises(InputError, match=r"sqlite:////absolute/path.*http://host:5000"):
        check_uri(uri)


@pytest.mark.parametrize(
    "name",
    ["plain", "a#b?c", "100%", "%41 %2F", "sp ace&=:;@é", "new\nline", "back\\slash", "'\"{[`"],
)
def test_a_path_is_found_again_in_its_address(tmp_path, name):
    """By us and by SQLAlchemy, which MLflow gives it to."""
    from sqlalchemy import make_url

    uri = default_uri(tmp_path / name)
    check_uri(uri)
    assert sqlite_file(uri) == tmp_path / name / "mlflow.db"
    assert make_url(uri).database == str(tmp_path / name / "mlflow.db")
    assert sqlite_file("http://host:5000") is None


def test_which_store_is_taken_and_why(tmp_path, monkeypatch):
    typed, exported = "sqlite:////typed.db", "http://me:secret@host:5000"
    assert choose_uri(None, tmp_path) == default_uri(tmp_path)
    assert explain_uri(None, {}) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", exported)
    assert choose_uri(None, tmp_path) == exported
    assert choose_uri(typed, tmp_path) == typed
    (used,) = explain_uri(None, {"MLFLOW_TRACKING_URI": exported})
    assert used.startswith("MLflow: http://me:***@host:5000 (MLFLOW_TRACKING_URI is set")
    used, ignored = explain_uri(typed, {"MLFLOW_TRACKING_URI": exported, "MLFLOW_RUN_ID": "1"})
    assert used == f"MLflow: {typed} (as typed; MLFLOW_TRACKING_URI is ignored)"
    assert ignored.startswith("MLflow: MLFLOW_RUN_ID ignored")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(InputError, match=r"^MLFLOW_TRACKING_URI=databricks.*tracking\.uri="):
        choose_uri(None, tmp_path)


def test_a_run_is_mirrored_whole(tmp_path, caplog):
    results_dir = tmp_path / "results? of #1, 100%25 digits"
    uri = default_uri(results_dir)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "curve.txt").write_text("curve")
    with open_record(results_dir) as record:
        record.update(commit="c0ffee")
        mirror = mirror_of(record, uri, {"model": "pvt_small", "long": "x" * 7000})
        mirror.start()
        assert record.status["mlflow"]["run_id"]
        log(record, range(1, 1501))
        record.log(1500, {"val/AP": 0.5, "val/AP@50": 0.6, "up": math.inf, "lost": math.nan})
        mirror.push(1200)
        mirror.settle()
        run_id = record.status["mlflow"]["run_id"]
        assert history(uri, run_id) == expected(range(1, 1201)), "as far as the checkpoint"
        mirror.log_artifacts(record.directory / "config.yaml", tmp_path / "pictures", folder="run")
        with pytest.raises(FileNotFoundError):
            mirror.log_artifacts(tmp_path / "missing")
        mirror.finish("finished")
        assert not mirror.behind
    (run,) = runs_in(uri)
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "pvt_small seed0"
    assert run.data.params == {"model": "pvt_small", "long": "x" * 6000}
    tags = {name: run.data.tags[name] for name in ("commit", "attempt", "identity", "mode")}
    assert tags == {
        "commit": "c0ffee",
        "attempt": "1",
        "identity": record.identity,
        "mode": "train",
    }
    assert history(uri, run_id) == expected(range(1, 1501))
    assert history(uri, run_id, "val/AP") == [(1500, 0.5)]
    assert math.isnan(run.data.metrics["lost"])
    assert set(run.data.metrics) == {LOSS, "val/AP", "lost"}
    artifacts = results_dir / "mlflow-artifacts" / EXPERIMENT / run_id / "artifacts" / "run"
    assert {path.name for path in artifacts.iterdir()} == {"config.yaml", "curve.txt"}
    # MLflow makes a folder with the escapes of the address, which does not stay.
    assert {path.name for path in tmp_path.iterdir()} == {results_dir.name, "pictures"}
    told = warnings_in(caplog)
    assert len(told) == 2
    assert "val/AP@50" in told[0]
    assert "up" in told[1]


@pytest.mark.parametrize(
    ("state", "status"), [("failed", "FAILED"), ("interrupted", "KILLED")], ids=["failed", "killed"]
)
def test_a_resume_goes_on_in_the_same_run(tmp_path, state, status):
    uri = default_uri(tmp_path)
    with open_record(tmp_path) as record:
        mirror = mirror_of(record, uri)
        mirror.start()
        log(record, range(1, 9))
        mirror.push(5)
        mirror.finish(state)
    (run,) = runs_in(uri)
    assert run.info.status == status
    assert history(uri, run.info.run_id) == expected(range(1, 6))
    with open_record(tmp_path) as record:
        record.cut(5)
        mirror = mirror_of(record, uri, {"model": "another", "new": 1})
        mirror.start()
        assert runs_in(uri)[0].info.status == "RUNNING"
        log(record, range(6, 11))
        mirror.finish("finished")
        assert not mirror.behind
    (again,) = runs_in(uri)
    assert again.info.run_id == run.info.run_id
    assert again.info.status == "FINISHED"
    assert again.data.params == {"model": "pvt_small", "new": "1"}
    assert again.data.tags["attempt"] == "2"
    assert history(uri, run.info.run_id) == expected(range(1, 11))


def test_a_rerun_is_a_new_run_and_marks_the_old_one(tmp_path):
    uri = default_uri(tmp_path)
    for rerun in (False, True):
        with open_record(tmp_path, rerun=rerun) as record:
            mirror = mirror_of(record, uri)
            mirror.start()
            log(record, range(1, 4))
            mirror.finish("finished")
            assert not mirror.behind
    new = record.status["mlflow"]["run_id"]
    tags = {run.info.run_id: run.data.tags.get("superseded_by") for run in runs_in(uri)}
    assert len(tags) == 2
    assert Counter(tags.values()) == Counter([None, new])
    assert tags[new] is None


def test_runs_that_differ_have_different_names_and_a_rerun_keeps_its_own(tmp_path):
    uri = default_uri(tmp_path)
    for seed, rerun in ((0, False), (1, False), (0, True), (1, True)):
        with open_record(tmp_path, seed, rerun=rerun) as record:
            mirror = mirror_of(record, uri)
            mirror.start()
            mirror.finish("finished")
            assert not mirror.behind
    names = Counter((run.data.tags["identity"], run.info.run_name) for run in runs_in(uri))
    first, second = f"{0:010}", f"{1:010}"
    assert names == {
        (first, "pvt_small seed0"): 2,
        (second, f"pvt_small seed0 {second[:6]}"): 2,
    }


def test_a_cost_that_code_of_before_sent_at_the_last_step_is_not_sent_again(tmp_path):
    from mlflow import MlflowClient

    uri = default_uri(tmp_path)
    with open_record(tmp_path) as record:
        mirror = mirror_of(record, uri)
        mirror.start()
        (run,) = runs_in(uri)
        MlflowClient(uri).log_metric(run.info.run_id, "cost/gflops", 5.0, step=10)
        record.log(10, {"cost/gflops": 5.0, "cost/params_m": 3.0})
        mirror.finish("finished")
        assert not mirror.behind
    assert history(uri, run.info.run_id, "cost/gflops") == [(10, 5.0)]
    assert history(uri, run.info.run_id, "cost/params_m") == [(0, 3.0)]


KILLED = """
import os, signal, sys
from pathlib import Path
from pvt_bench.tracking import store
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.record import Record

def then_die(name):
    real = getattr(store.Store, name)
    def act_and_die(*arguments):
        real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(store.Store, name, act_and_die)

folder, uri, moment = sys.argv[1:]
then_die(moment)
with Record.open({"seed": 0}, folder, "coco_retinanet/digits/pvt-0", f"{0:010}") as record:
    record.begin()
    mirror = Mirror(record, uri, Presentation("coco_retinanet", "pvt_small seed0", {}, {}))
    mirror.start()
    for step in range(1, 21):
        record.log(step, {"train/loss": 1 / step})
    mirror.push(20)
    mirror.settle()
"""


@pytest.mark.parametrize("moment", ["open_run", "log_values"])
def test_a_kill_between_sending_and_noting_doubles_nothing(tmp_path, moment):
    uri = default_uri(tmp_path)
    command = [sys.executable, "-c", KILLED, str(tmp_path), uri, moment]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    with open_record(tmp_path) as record:
        # The same steps at other moments: MLflow itself would keep both.
        record.cut(0)
        log(record, range(1, 31))
        mirror = mirror_of(record, uri)
        mirror.start()
        mirror.finish("finished")
        assert not mirror.behind
    (run,) = runs_in(uri)
    assert history(uri, run.info.run_id) == expected(range(1, 31))


def run_one_of_many(results_dir: Path, seed: int) -> None:
    with open_record(results_dir, seed) as record:
        mirror = mirror_of(record, default_uri(results_dir))
        mirror.start()
        for first in range(1, 50, 10):
            log(record, range(first, first + 10))
            mirror.push(first + 9)
        mirror.finish("finished")
        record.update(state="finished")
        assert not mirror.behind


def test_eight_processes_open_a_fresh_store_at_once(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    processes = [
        context.Process(target=run_one_of_many, args=(tmp_path, seed)) for seed in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 8
    uri = default_uri(tmp_path)
    runs = runs_in(uri)
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    for run in runs:
        assert history(uri, run.info.run_id) == expected(range(1, 51))


def test_a_push_reads_on_from_where_the_last_one_ended(tmp_path):
    """What was sent is not read again, unless the file was rewritten."""
    uri = default_uri(tmp_path)
    with open_record(tmp_path) as record:
        mirror = mirror_of(record, uri, retry_after=0)
        mirror.start()
        log(record, range(1, 11))
        mirror.push(8)
        mirror.settle()
        sent = record.metrics.path.read_bytes().splitlines(keepends=True)
        spoilt = b"".join([b"?" * (len(line) - 1) + b"\n" for line in sent[:8]] + sent[8:])
        record.metrics.path.write_bytes(spoilt)
        log(record, range(11, 21))
        mirror.push(20)
        mirror.settle()
        assert not mirror.behind
        record.metrics.path.write_bytes(b"".join(sent))
        log(record, range(11, 21))
        record.cut(15)
        log(record, range(16, 31))
        mirror.push(30)
        mirror.settle()
        assert not mirror.behind
    (run,) = runs_in(uri)
    assert history(uri, run.info.run_id) == expected(range(1, 31))


def test_a_server_that_dies_and_comes_back_gets_everything_once(server, tmp_path, caplog):
    with open_record(tmp_path) as record:
        mirror = mirror_of(record, server.uri, retry_after=0)
        mirror.start()
        log(record, range(1, 11))
        record.log(10, {"lost": math.nan})
        mirror.push(10)
        mirror.settle()
        assert not mirror.behind
        server.kill()
        log(record, range(11, 21))
        began = time.monotonic()
        mirror.push(15)
        mirror.log_artifacts(record.directory / "config.yaml")
        mirror.push(20)
        mirror.settle()
        assert time.monotonic() - began < 10
        assert mirror.behind
        assert json.loads((record.directory / "status.json").read_text())["mlflow"]["behind"]
        (told,) = warnings_in(caplog)
        assert server.uri in told
        assert "metrics.jsonl" in told
        server.start()
        log(record, range(21, 31))
        mirror.push(25)
        mirror.settle()
        assert not mirror.behind
        (run,) = runs_in(server.uri)
        run_id = run.info.run_id
        assert history(server.uri, run_id) == expected(range(1, 26))
        mirror.finish("finished")
    (run,) = runs_in(server.uri)
    assert run.info.status == "FINISHED"
    assert history(server.uri, run.info.run_id) == expected(range(1, 31))
    assert math.isnan(run.data.metrics["lost"])
    assert list((tmp_path / "artifacts").rglob("config.yaml"))

    with open_record(tmp_path, seed=1) as record:
        mirror = mirror_of(record, f"http://127.0.0.1:{free_port()}")
        mirror.start()
        log(record, range(1, 11))
        mirror.push(5)
        mirror.finish("interrupted")
        assert mirror.behind
        assert "Connection refused" in warnings_in(caplog)[-1]
        record.update(state="interrupted")
    with Record.reopen(record.directory) as record:
        assert record.status["mlflow"]["behind"]
        later = mirror_of(record, server.uri)
        later.finish(record.status["state"])
        assert not later.behind
    (run,) = (run for run in runs_in(server.uri) if run.info.run_id != run_id)
    assert run.info.status == "KILLED"
    assert history(server.uri, run.info.run_id) == expected(range(1, 6))


def test_a_server_that_never_answers_holds_nobody_up(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with closing(socket.socket()) as hole, open_record(tmp_path) as record:
        hole.bind(("127.0.0.1", 0))
        hole.listen(64)
        mirror = mirror_of(record, f"http://user:secret@127.0.0.1:{hole.getsockname()[1]}")
        from pvt_bench.tracking import store  # the import's seconds are not the server's

        assert store
        began = time.monotonic()
        mirror.start()
        assert mirror.behind
        assert time.monotonic() - began < 5
        began = time.monotonic()
        log(record, range(1, 101))
        for step in range(1, 101):
            mirror.push(step)
        mirror.settle()
        assert time.monotonic() - began < 2, "the server is left alone for some minutes"
        assert record.status["mlflow"]["due"] == 100
        began = time.monotonic()
        mirror.finish("finished")
        assert time.monotonic() - began < 5
        assert mirror.behind
        assert len(warnings_in(caplog)) == 1
        assert "secret" not in caplog.text + (record.directory / "status.json").read_text()


def test_the_default_timeout_is_short():
    code = (
        "import os; os.environ.pop('MLFLOW_HTTP_REQUEST_TIMEOUT', None);"
        "from pvt_bench.tracking.reaching import quiet_and_quick; quiet_and_quick();"
        "from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT as timeout,"
        " MLFLOW_HTTP_REQUEST_MAX_RETRIES as retries; print(timeout.get(), retries.get())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    timeout, retries = map(int, answer.stdout.split())
    assert timeout * (retries + 1) <= 15, answer.stderr


CHATTER = """
import sys
from pvt_bench.tracking.addresses import default_uri
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.record import Record
with Record.open({}, sys.argv[1], "a/b/c", "0123456789") as record:
    shown = Presentation("a", "run", {"long": "x" * 9000}, {})
    mirror = Mirror(record, default_uri(sys.argv[1]), shown)
    mirror.start()
    record.log(1, {"train/loss": 1.0})
    mirror.finish("finished")
    assert not mirror.behind
"""


def test_mlflow_keeps_its_chatter_to_itself(tmp_path):
    command = [sys.executable, "-c", CHATTER, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_a_broken_store_is_replaced_before_a_run_and_within_it(tmp_path, caplog):
    store, garbage = tmp_path / "mlflow.db", "this is no database " * 500
    store.write_text(garbage)
    with open_record(tmp_path) as record, caplog.at_level(logging.WARNING):
        mirror = mirror_of(record, default_uri(tmp_path), retry_after=0)
        mirror.start()
        assert not mirror.behind
        (told,) = warnings_in(caplog)
        assert "file is not a database" in told
        assert "pvt_bench.sync" in told
        (aside,) = tmp_path.glob("mlflow.db.*.damaged")
        assert aside.read_text() == garbage
        log(record, range(1, 4))
        mirror.push(3)
        mirror.settle()
        store.write_text(garbage)
        log(record, range(4, 6))
        mirror.push(5)
        mirror.settle()
        assert mirror.behind
        mirror.finish("finished")
        assert not mirror.behind
    (run,) = runs_in(default_uri(tmp_path))
    assert history(default_uri(tmp_path), run.info.run_id) == expected(range(1, 6))


def test_a_directory_in_the_place_of_a_store_stays(tmp_path, caplog):
    (tmp_path / "mlflow.db").mkdir()
    with open_record(tmp_path) as record:
        mirror = mirror_of(record, default_uri(tmp_path))
        began = time.monotonic()
        mirror.start()
        assert time.monotonic() - began < 10
        assert mirror.behind
    (told,) = warnings_in(caplog)
    assert "mlflow.db is not a file" in told
