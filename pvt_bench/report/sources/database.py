"""Runs from the database of an MLflow store, read only.

MLflow's own search takes ten times as long, builds an object per run, and migrates a store with an
older schema; five tables hold all that is needed.
"""

import re
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pandas as pd
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Select,
    TableClause,
    column,
    create_engine,
    inspect,
    select,
    table,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pvt_bench.errors import InputError
from pvt_bench.report.sources.loaded import INFO, Loaded, content_key
from pvt_bench.tracking.addresses import without_password
from pvt_bench.tracking.publishing import CONTEXT_TAG, RECORD_TAG, SUPERSEDED_TAG

# Of the runs that hold a sweep's cells, which measure nothing themselves.
SWEEP = {"kind": "sweep"}
STATES = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
    "RUNNING": "running",
    "SCHEDULED": "queued",
}
# What MLflow stores for infinity.
LARGEST = 1.7976931348623157e308


def _table(name: str, *columns: str) -> TableClause:
    return table(name, *(column(each) for each in columns))


RUNS = _table(
    "runs", "run_uuid", "name", "status", "start_time", "lifecycle_stage", "artifact_uri",
    "experiment_id",
)  # fmt: skip
EXPERIMENTS = _table("experiments", "experiment_id", "name")
TAGS = _table("tags", "run_uuid", "key", "value")
PARAMS = _table("params", "run_uuid", "key", "value")
LATEST = _table("latest_metrics", "run_uuid", "key", "value", "is_nan")
# What runs read.
INPUTS = _table("inputs", "input_uuid", "source_id", "destination_id")
INPUT_TAGS = _table("input_tags", "input_uuid", "name", "value")
DATASETS = _table("datasets", "dataset_uuid", "digest")
METRICS = _table("metrics", "run_uuid", "key", "value", "is_nan", "step")
VERSION = _table("alembic_version", "version_num")


class Database:
    """MLflow store at a SQL address, for example `sqlite:///results/mlflow.db`."""

    def __init__(self, uri: str) -> None:
        self._url = make_url(uri)
        self.place = without_password(uri)

    def load(self) -> Loaded:
        """Read all runs of pvt-bench that were neither deleted nor started over."""
        with self._connected() as connection:
            older = self._check_version(connection)
            info, others = _read_info(connection)
            params = _wide(connection, _of_ours(PARAMS))
            contents = _read_contents(connection)
            metrics = _wide(connection, _of_ours(LATEST))
        return Loaded(
            info,
            params.reindex(info.index).join(contents),
            metrics.reindex(info.index),
            (*older, *([f"Other runs in it are ignored ({others})."] if others else [])),
        )

    def history(self, run: Hashable, metrics: Sequence[str]) -> pd.DataFrame:
        """Metrics by step."""
        query = select(METRICS).where(METRICS.c.run_uuid == run, METRICS.c.key.in_(metrics))
        with self._connected() as connection:
            points = _numbers(pd.read_sql(query, connection))
        return points.pivot_table("value", "step", "key", "last")

    def read(self, run: Hashable, name: str) -> str | None:
        """Text of an artifact, if artifacts are files of this machine."""
        path = self.file(run, name)
        return path.read_text() if path else None

    def file(self, run: Hashable, name: str) -> Path | None:
        """Path of an artifact, if artifacts are files of this machine."""
        query = select(RUNS.c.artifact_uri).where(RUNS.c.run_uuid == run)
        with self._connected() as connection:
            folder = local_path(connection.execute(query).scalar_one())
        path = folder and folder / name
        return path if path and path.is_file() else None

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        url = self._url
        if url.drivername == "sqlite":
            path = Path(str(url.database)).expanduser()
            if not path.is_file():
                raise InputError(
                    f"There is no MLflow store {path}. Use tracking.uri=sqlite:///PATH of the "
                    "file, or leave it out to read the records under results_dir."
                )
            place = f"file:{quote(str(path.resolve()))}"
            url = URL.create("sqlite", database=place, query={"mode": "ro", "uri": "true"})
        try:
            with create_engine(url).connect() as connection:
                yield connection
        except ModuleNotFoundError as error:
            raise InputError(
                f"{self.place} needs a driver that is not installed: pip install {error.name}"
            ) from error
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error)).splitlines()[0]
            raise InputError(
                f"The MLflow store {self.place} cannot be read: {reason}. Is it a store, of a "
                "version that mlflow here knows, and is its server up?"
            ) from error

    def _check_version(self, connection: Connection) -> list[str]:
        """Refuse a store newer than the installed MLflow; a sentence if it is older."""
        found = connection.execute(select(VERSION.c.version_num)).scalar_one_or_none()
        known, newest = _schema_versions()
        if found not in known:
            raise InputError(
                f"The MLflow store {self.place} has the schema {found}, which the MLflow that is "
                "installed here does not know: a newer MLflow made it. Type: pip install -U mlflow"
            )
        if found != newest:
            return [f"Its schema {found} is older than that of the MLflow here; it is unchanged."]
        return []


def local_path(artifact_uri: str) -> Path | None:
    """Folder of a run's artifacts; None if it is not on this machine."""
    parts = urlsplit(artifact_uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _schema_versions() -> tuple[set[str], str]:
    """Versions of the schema that the installed MLflow knows, and the newest of them.

    Its migrations are files, each of which names itself and the one before; MLflow is not imported.
    """
    spec = find_spec("mlflow")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0], "store", "db_migrations", "versions")
    lines = [line for path in folder.glob("*.py") for line in path.read_text().splitlines()]
    known, before = (
        {name for line in lines if line.startswith(field) for name in re.findall(r"\w{12,}", line)}
        - {field}
        for field in ("revision", "down_revision")
    )
    (newest,) = known - before
    return known, newest


def _read_info(connection: Connection) -> tuple[pd.DataFrame, int]:
    """INFO of our runs, and the number of other runs."""
    query = select(RUNS, EXPERIMENTS.c.name.label("experiment")).where(
        RUNS.c.lifecycle_stage == "active", RUNS.c.experiment_id == EXPERIMENTS.c.experiment_id
    )
    runs = pd.read_sql(query, connection).set_index("run_uuid")
    names = ("identity", "sweep", "commit", "host", "device", RECORD_TAG, SUPERSEDED_TAG, *SWEEP)
    tags = _wide(connection, select(TAGS).where(TAGS.c.key.in_(names)))
    runs = runs.join(tags.reindex(columns=list(names)))
    ours = runs[runs[RECORD_TAG].notna()]
    held = (ours[list(SWEEP)] == SWEEP).all(axis="columns")
    kept = ours[ours[SUPERSEDED_TAG].isna() & ~held]
    info = kept.assign(
        run_id=kept.index,
        state=kept["status"].map(STATES),
        started=pd.to_datetime(kept["start_time"], unit="ms", utc=True),
        link=kept["artifact_uri"].map(lambda uri: str(local_path(uri) or uri)),
    )
    return info[list(INFO)], len(runs) - len(ours)


def _read_contents(connection: Connection) -> pd.DataFrame:
    """Digests of the data of each run, by content_key; old stores have none."""
    if not inspect(connection).has_table(DATASETS.name):
        return pd.DataFrame()
    query = select(
        INPUTS.c.destination_id.label("run_uuid"),
        INPUT_TAGS.c.value.label("key"),
        DATASETS.c.digest.label("value"),
    ).where(
        INPUTS.c.source_id == DATASETS.c.dataset_uuid,
        INPUTS.c.input_uuid == INPUT_TAGS.c.input_uuid,
        INPUT_TAGS.c.name == CONTEXT_TAG,
        _is_ours(INPUTS.c.destination_id),
    )
    return _wide(connection, query).rename(columns=content_key)


def _of_ours(of: TableClause) -> Select[tuple[object, ...]]:
    return select(of).where(_is_ours(of.c.run_uuid))


def _is_ours(run: ColumnElement[str]) -> ColumnElement[bool]:
    return run.in_(select(TAGS.c.run_uuid).where(TAGS.c.key == RECORD_TAG))


def _wide(connection: Connection, query: Select[tuple[object, ...]]) -> pd.DataFrame:
    """Pivot to one row per run and one column per key."""
    result = connection.execute(query)
    # Of a million values the driver's own tuples come in half the time of SQLAlchemy's rows.
    long = _numbers(pd.DataFrame(result.cursor.fetchall(), columns=list(result.keys())))
    return long.pivot(index="run_uuid", columns="key", values="value").rename_axis(None, axis=1)


def _numbers(long: pd.DataFrame) -> pd.DataFrame:
    """Values as they were logged: MLflow keeps NaN as zero with a mark, infinity as a number."""
    if "is_nan" in long:
        long["value"] = long["value"].mask(long["is_nan"].astype(bool))
        finite = long["value"].abs() < LARGEST
        long["value"] = long["value"].where(finite | long["value"].isna(), long["value"] * 2)
    return long
