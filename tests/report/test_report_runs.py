"""The runs of a report: from records, from a real sqlite store, from a real server; what is not
theirs, and what cannot be read."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import environment
from mlflow import MlflowClient
from mlflow.entities import Metric
from report_runs import COST, make_run, read_result, settings
from test_mlflow_page import free_port, wait_until_up

from pvt_bench.errors import InputError
from pvt_bench.report.sources import database
from pvt_bench.report.sources.loaded import INFO
from pvt_bench.report.sources.runs import Runs, load_runs
from pvt_bench.sync import send
from pvt_bench.tracking import publishing
from pvt_bench.tracking.reading import read_status

TRAIN = ("model=pvt_small", "task=coco_retinanet")
POINTS = [(10, {"train/loss": 2.0, "train/images_seen": 40}), (20, {"train/loss": 1.0})]
PER_CLASS = {"per_class.csv": "class,AP,images\none,0.5,4\n"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four records: two seeds, one that failed, and a cost; mirrored in a store."""
    folder = tmp_path_factory.mktemp("report") / "results"
    digests = {"training": "a" * 36, "evaluation": "b" * 36}
    for seed in (0, 1):
        row = {**COST, "val/AP": 0.4 + seed / 10, "val/APl": float("nan"), "seconds": 5.0}
        make_run(
            folder, settings(*TRAIN, f"seed={seed}"), row, points=POINTS, files=PER_CLASS,
            digests=digests,
        )  # fmt: skip
    make_run(folder, settings(*TRAIN, "seed=2"), None, "failed", points=POINTS, digests=digests)
    make_run(folder, settings(*TRAIN, "mode=cost"), COST)
    for directory in folder.glob("runs/*/*/*/status.json"):
        assert send(directory.parent, address(folder), folder)
    return folder


def address(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def uri(results: Path, tmp_path: Path) -> str:
    """The address of a copy of the store that a test may change."""
    shutil.copy(results / "mlflow.db", tmp_path / "mlflow.db")
    return address(tmp_path)


@pytest.fixture
def server(results: Path) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
         "--workers", "1", "--backend-store-uri", address(results)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until_up(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def by_identity(runs: Runs) -> pd.DataFrame:
    return runs.table.set_index("identity").sort_index()


def test_the_table_holds_what_the_records_hold(results: Path) -> None:
    runs = load_runs(results)
    assert len(runs.table) == 4
    for directory, row in runs.table.iterrows():
        status = read_status(Path(str(directory)))
        assert row["state"] == status["state"]
        assert row["link"] == str(directory)
        assert (row["commit"], row["host"]) == (status["commit"], status["host"])
        assert row["started"] == pd.Timestamp(status["started"])
        for name in runs.metrics if row["state"] == "finished" else ():
            logged = {"train/loss": 1.0, "train/images_seen": 40} if row["mode"] == "train" else {}
            expected = {**logged, **status["result"]}
            np.testing.assert_equal(row[name], expected.get(name, np.nan), err_msg=name)
    failed = runs.table[runs.table["state"] == "failed"]
    assert failed[list(runs.metrics)].isna().all(axis=None)
    train = runs.table[runs.table["mode"] == "train"].iloc[0]
    assert train["model.sr_ratios"] == "[8, 4, 2, 1]"
    assert train["model.drop_path"] == "0.1"
    assert (train["content.training"], train["content.evaluation"]) == ("a" * 36, "b" * 36)


def test_runs_from_before_a_key_share_its_value_of_then(tmp_path: Path) -> None:
    """The key came later, and at that value the result is that of before."""
    old, new, other = (
        settings(*TRAIN, "dataset=coco", f"seed={seed}", f"dataset.exif={exif}")
        for seed, exif in enumerate(("apply", "apply", "ignore"))
    )
    del old["dataset"]["exif"], old["dataset"]["bits"]
    for config in (old, new, other):
        make_run(tmp_path / "results", config, {**COST, "val/AP": 0.4})
    table = load_runs(tmp_path / "results").table.sort_values("seed")
    assert table["dataset.exif"].tolist() == ["apply", "apply", "ignore"]
    assert table["dataset.bits"].tolist() == ["None"] * 3


def test_a_store_gives_the_same_runs_as_the_records(results: Path, server: str) -> None:
    ours = load_runs(results)
    for uri in (address(results), server):
        theirs = load_runs("elsewhere", uri)
        assert (theirs.params, {*theirs.metrics}) == (ours.params, {*ours.metrics})
        columns = ["name", "state", "commit", "host", "device", "experiment", "run_id"]
        columns += [*ours.params, *ours.metrics]
        pd.testing.assert_frame_equal(
            by_identity(theirs)[columns], by_identity(ours)[columns], check_dtype=False
        )
        assert not theirs.table["started"].isna().any()
        for runs in (ours, theirs):
            run = runs.table.index[runs.table["val/AP"] == 0.4][0]
            history = runs.source.history(run, ["train/loss", "train/images_seen"])
            assert history["train/loss"].to_dict() == {10: 2.0, 20: 1.0}
            assert history.loc[10, "train/images_seen"] == 40
            assert runs.source.read(run, "per_class.csv") == PER_CLASS["per_class.csv"]
            assert runs.source.read(run, "nothing.csv") is None
            path = runs.source.file(run, "per_class.csv")
            assert (path is None) == (runs is theirs and uri == server)
            assert path is None or path.read_text() == PER_CLASS["per_class.csv"]
            assert runs.source.file(run, "nothing.csv") is None
    assert by_identity(theirs)["link"].str.startswith(f"{server}/#/experiments/").all()


def test_what_is_not_ours_is_left_out_and_counted(uri: str) -> None:
    client = MlflowClient(tracking_uri=uri)
    mine = load_runs("elsewhere", uri)
    experiment = client.create_experiment("other project")
    foreign = client.create_run(experiment)
    client.log_batch(foreign.info.run_id, metrics=[Metric("val/AP", 0.99, 0, 0)])
    deleted, superseded = mine.table["run_id"][:2]
    client.delete_run(deleted)
    client.set_tag(superseded, publishing.SUPERSEDED_TAG, "another")
    sweep = client.create_run("1", tags={publishing.RECORD_TAG: "sweep x", "kind": "sweep"})
    runs = load_runs("elsewhere", uri)
    assert {*runs.table["run_id"]} == {*mine.table["run_id"]} - {deleted, superseded}
    assert sweep.info.run_id not in runs.table.index
    assert runs.left_out == ("Other runs in it are ignored (1).",)


def test_a_run_that_is_there_twice_counts_once(uri: str) -> None:
    client = MlflowClient(tracking_uri=uri)
    again = load_runs("elsewhere", uri).table.query("state == 'finished'").iloc[0]
    tags = {publishing.RECORD_TAG: "x", "identity": again["identity"]}
    client.create_run("1", tags=tags)  # RUNNING, and so without a result
    runs = load_runs("elsewhere", uri)
    assert len(runs.table) == 4
    assert again["run_id"] in runs.table.index
    assert runs.left_out == ("Older or unfinished copies of runs are ignored (1).",)


def test_nan_is_missing_and_infinity_is_not(uri: str) -> None:
    client = MlflowClient(tracking_uri=uri)
    run = load_runs("elsewhere", uri).table.query("mode == 'cost'").index[0]
    for name, value in (("a", np.nan), ("b", np.inf), ("c", -np.inf), ("d", 1.5)):
        client.log_metric(run, name, value)
    row = load_runs("elsewhere", uri).table.loc[run]
    np.testing.assert_equal([row[name] for name in "abcd"], [np.nan, np.inf, -np.inf, 1.5])


@pytest.mark.parametrize("newer", [True, False])
def test_other_versions_of_the_schema_are_told(uri: str, tmp_path: Path, newer: bool) -> None:
    known, newest = database._schema_versions()
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [(newest,)]
        other = "f" * 12 if newer else min(known - {newest})
        connection.execute("UPDATE alembic_version SET version_num = ?", [other])
    if newer:
        with pytest.raises(InputError, match=r"a newer MLflow made it. Type: pip install -U"):
            load_runs("elsewhere", uri)
    else:
        runs = load_runs("elsewhere", uri)
        assert len(runs.table) == 4
        assert "is older than that of the MLflow here" in runs.left_out[0]


def test_reading_changes_nothing(uri: str, tmp_path: Path) -> None:
    before = (tmp_path / "mlflow.db").read_bytes()
    load_runs("elsewhere", uri)
    assert (tmp_path / "mlflow.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    ("name", "text"), [("config.yaml", "a: [1"), ("status.json", "{"), ("mlflow.json", "{}")]
)
def test_one_broken_record_does_not_hide_the_others(tmp_path: Path, name: str, text: str) -> None:
    broken = make_run(tmp_path, settings(*TRAIN, "mode=cost"), COST)
    make_run(tmp_path, settings("model=pvt_tiny", TRAIN[1], "mode=cost"), COST)
    (broken / name).write_text(text)
    runs = load_runs(tmp_path)
    assert list(runs.table["model.name"]) == ["pvt_tiny"]
    assert f"{broken} cannot be read" in runs.left_out[0]


def test_a_run_whose_process_is_gone_is_lost(tmp_path: Path) -> None:
    directory = make_run(tmp_path, settings(*TRAIN, "seed=7"), None, "running")
    heartbeat = directory / "heartbeat"
    heartbeat.touch()
    assert load_runs(tmp_path).table.at[directory, "state"] == "running"
    os.utime(heartbeat, (0, 0))
    assert load_runs(tmp_path).table.at[directory, "state"] == "lost"


def test_where_nothing_is_the_message_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There are no runs of pvt-bench in .* mode=cost"):
        load_runs(tmp_path)
    with pytest.raises(InputError, match="There is no MLflow store"):
        load_runs(tmp_path, f"sqlite:///{tmp_path}/none.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(InputError, match="no such table: alembic_version"):
        load_runs(tmp_path, f"sqlite:///{tmp_path}/empty.db")
    (tmp_path / "text.db").write_text("hello " * 100)
    with pytest.raises(InputError, match="file is not a database"):
        load_runs(tmp_path, f"sqlite:///{tmp_path}/text.db")
    with pytest.raises(InputError, match=r"h:\*\*\*@host/x needs a driver"):
        load_runs(tmp_path, "postgresql+pg8000://h:secret@host/x")
    with pytest.raises(InputError, match="gives no valid answer"):
        load_runs(tmp_path, f"http://127.0.0.1:{free_port()}")
    MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db").create_experiment("x")
    with pytest.raises(InputError, match=r"There is an MLflow store: tracking\.uri=sqlite"):
        load_runs(tmp_path)
    with pytest.raises(InputError, match="There are no runs of pvt-bench in sqlite"):
        load_runs(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")


def test_info_has_no_key_of_a_run(results: Path) -> None:
    runs = load_runs(results)
    assert not {*INFO} & {*runs.params, *runs.metrics}
    assert read_result(Path(str(runs.table.index[0])))
