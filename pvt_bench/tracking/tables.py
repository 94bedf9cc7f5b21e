"""MLflow's tables in a sqlite file: all of them or none, whenever the process is killed.

Importing this module imports MLflow, which takes more than a second.
"""

import logging
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow.store.db.utils as mlflow_db
from sqlalchemy import URL, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

# sqlite's errors over the content of a file, not over the disk, its rights or another process.
FAULTS = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Files that sqlite keeps beside its own until all is written.
JOURNALS = ("-journal", "-wal", "-shm")
PATIENCE_S = 30.0

logger = logging.getLogger(__name__)


class NotWhole(Exception):
    """A file that is no whole store, and why."""


def ensure_tables(database: Path) -> None:
    """Make the store where there is none; do MLflow's migration where MLflow would do it unasked.

    A file that is no whole store is moved aside, with a warning, and a new store takes its place.
    The caller holds the lock of `tracking.mlflow.exclusive`.

    Raises:
        OSError: the file cannot be opened, written or moved.
        sqlite3.Error, SQLAlchemyError, alembic's CommandError: the same, or a newer MLflow made it.
    """
    if not database.exists():
        _fill(database)
        return
    if not database.is_file():
        raise IsADirectoryError(f"{database} is not a file")
    try:
        with _damage_told():
            if not _is_left_as_it_is(database):
                _fill(database)
    except NotWhole as error:
        aside = _set_aside(database)
        _fill(database)
        logger.warning(
            "%s was no whole MLflow store (%s): it is kept as %s, and a new one takes its place. "
            "Nothing is lost: python -m pvt_bench.sync sends the runs that were in it.",
            database,
            error,
            aside.name,
        )


def _is_left_as_it_is(database: Path) -> bool:
    """Whether MLflow opens the file without changing it, or refuses it and says what to type."""
    version, columns = _read(database)
    if not columns:
        raise NotWhole("it is empty")
    missing = _expected() - columns
    if version == mlflow_db._get_latest_schema_revision():
        if missing:
            raise NotWhole(f"it lacks {'.'.join(min(missing))}")
        return True
    tables = {table for table, _ in columns}
    return version is not None and {table for table, _ in _expected()} <= tables


def _read(database: Path) -> tuple[str | None, set[tuple[str, str]]]:
    """The version of the schema, and the columns as table and name."""
    with closing(sqlite3.connect(database)) as connection:
        columns: set[tuple[str, str]] = set(
            connection.execute(
                "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_xinfo(m.name) AS c "
                "WHERE m.type = 'table'"
            )
        )
        row = None
        if ("alembic_version", "version_num") in columns:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row and row[0], columns


def _expected() -> set[tuple[str, str]]:
    tables = mlflow_db.Base.metadata.tables.values()
    return {(table.name, column.name) for table in tables for column in table.columns}


def _fill(database: Path) -> None:
    """Make or complete the tables in a copy, and put it into place in one transaction."""
    beside = database.with_name(f"{database.name}.new")
    beside.unlink(missing_ok=True)
    try:
        if database.exists():
            _copy(database, beside)
        mlflow_db._initialize_tables(_scratch_engine(beside))
        if missing := _expected() - _read(beside)[1]:
            raise NotWhole(f"it lacks {'.'.join(min(missing))}")
        _copy(beside, database)
    finally:
        beside.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Give a database the content of another one: all of it or, after a kill, nothing."""
    end = time.monotonic() + PATIENCE_S

    def check(*_: int) -> None:
        if time.monotonic() > end:
            raise TimeoutError(f"{target} is held by another program")

    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new, progress=check)


def _scratch_engine(path: Path) -> Engine:
    """An engine for a file that is thrown away after a crash, and so need not be synced."""
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    return engine


@contextmanager
def _damage_told() -> Iterator[None]:
    """Turn sqlite's errors over a file's content into NotWhole."""
    try:
        yield
    except (sqlite3.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if getattr(cause, "sqlite_errorcode", 0) & 0xFF not in FAULTS:
            raise
        raise NotWhole(str(cause)) from error


def _set_aside(database: Path) -> Path:
    """Rename a file with its journals, without which it may not be read."""
    aside = database.with_name(f"{database.name}.{secrets.token_hex(4)}.damaged")
    for journal in JOURNALS:
        beside = database.with_name(database.name + journal)
        if beside.exists():
            beside.replace(aside.with_name(aside.name + journal))
    database.replace(aside)
    return aside
