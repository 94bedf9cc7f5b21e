"""A sqlite store has all of MLflow's tables or is made anew; an older MLflow's store is kept."""

import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import wait
from forking import LIBRARIES
from mlflow import MlflowClient

from pvt_bench.tracking.addresses import sqlite_uri
from pvt_bench.tracking.tables import ensure_tables


def run_sql(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def migrate(database: Path, revision: str) -> None:
    """Make a store of an older MLflow by its own migrations."""
    from alembic import command
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    engine = create_engine(sqlite_uri(database))
    utils.InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config(sqlite_uri(database))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def asides(database: Path) -> list[Path]:
    return list(database.parent.glob(f"{database.name}.*"))


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("pvt_bench")]


def experiments(database: Path) -> set[str]:
    return {each.name for each in MlflowClient(sqlite_uri(database)).search_experiments()}


def test_a_kill_while_the_store_is_made_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "mlflow.db"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    maker = context.Process(target=ensure_tables, args=(database,))
    maker.start()
    beside = tmp_path / "mlflow.db.new"
    wait(lambda: beside.exists() and beside.stat().st_size > 200_000, "half of the tables")
    maker.kill()
    maker.join()
    assert not database.exists()
    ensure_tables(database)
    assert experiments(database) == {"Default"}
    assert asides(database) == []
    assert not warnings_in(caplog)


def cut(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def lose_a_table(database: Path) -> None:
    run_sql(database, "DROP TABLE latest_metrics")


def stop_within_the_first_migration(database: Path) -> None:
    database.unlink()
    migrate(database, "451aebb31d03")
    run_sql(database, "DELETE FROM alembic_version")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda database: database.write_bytes(b""), "it is empty"),
        (cut, "malformed"),
        (lose_a_table, "it lacks latest_metrics"),
        (stop_within_the_first_migration, "duplicate column name: step"),
    ],
    ids=["empty", "cut", "without a table", "killed while made"],
)
def test_what_is_no_whole_store_is_kept_beside_a_new_one(
    damage: Callable[[Path], None],
    why: str,
    results: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = results / "mlflow.db"
    damage(database)
    before = database.read_bytes()
    ensure_tables(database)
    assert experiments(database) == {"Default"}
    (aside,) = asides(database)
    assert aside.read_bytes() == before
    (told,) = warnings_in(caplog)
    assert why in told
    assert aside.name in told


def test_a_store_of_an_older_mlflow_keeps_what_it_holds(
    results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "older.db"
    migrate(database, "0a8213491aaa")
    run_sql(database, "INSERT INTO experiments (name, lifecycle_stage) VALUES ('mine', 'active')")
    ensure_tables(database)
    assert "mine" in experiments(database)

    # Where no table is missing, MLflow itself refuses, and says what to type.
    refused = shutil.copy(results / "mlflow.db", tmp_path / "refused.db")
    run_sql(refused, "UPDATE alembic_version SET version_num = '0a8213491aaa'")
    before = refused.read_bytes()
    ensure_tables(refused)
    assert refused.read_bytes() == before
    assert asides(database) == asides(refused) == []
    assert not warnings_in(caplog)
