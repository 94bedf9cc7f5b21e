"""The few things asked of MLflow, each of which may be repeated without harm.

Importing this module imports MLflow, which takes more than a second.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import (
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)

from pvt_bench.escaping import visible
from pvt_bench.tracking.addresses import reveal, sqlite_file
from pvt_bench.tracking.deadlines import end_requests
from pvt_bench.tracking.publishing import CONTEXT_TAG, IDENTITY_TAG, NOTE_TAG, RECORD_TAG, WEIGHTS
from pvt_bench.tracking.tables import ensure_tables
from pvt_bench.tracking.values import Value
from pvt_bench.tracking.views import MOST_VIEWS, VIEW_TAG

for _name in ("mlflow", "alembic"):
    # What fails is told by the mirror, once and in a line.
    logging.getLogger(_name).setLevel(logging.CRITICAL)

T = TypeVar("T")
# The page shows an experiment's runs with their metrics, and not as those of a chat.
KIND = {"mlflow.experimentKind": "custom_model_development"}
NOT_IN_NAMES = re.compile(r"[^\w.\- :/]")


class Store:
    """An MLflow store at `uri`, whose secret may be hidden.

    `artifact_root` holds the files of experiments created here.
    """

    def __init__(self, uri: str, artifact_root: Path | None) -> None:
        end_requests()
        if (database := sqlite_file(uri)) is not None:
            # MLflow keeps an engine per address: it must not hold a file that was replaced.
            os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
            ensure_tables(database)
        self._client = MlflowClient(tracking_uri=reveal(uri))
        self._artifact_root = artifact_root

    def experiment(self, name: str, tags: Mapping[str, str] | None = None) -> str:
        """The id of an experiment, created or restored where needed.

        tags: its description and what belongs to it; one that has a description keeps its own.
        """
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return self._create_experiment(name, tags or {})
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if tags and NOTE_TAG not in found.tags:
            self._tag_experiment(found, tags)
        return str(found.experiment_id)

    def add_view(self, experiment_id: str, view: Mapping[str, str]) -> None:
        """Add a view to an experiment, unless it has it or has too many."""
        found = self._client.get_experiment(experiment_id)
        if sum(key.startswith(VIEW_TAG) for key in found.tags) < MOST_VIEWS:
            self._tag_experiment(found, view)

    def open_run(
        self,
        experiment_id: str,
        name: str,
        run_id: str | None,
        record: str,
        started: float | None = None,
        identity: str | None = None,
    ) -> Run:
        """The run with that id, or the run of that record, or a new one; RUNNING in any case.

        started: seconds since the epoch at which a new one began; by default now.
        identity: a new one's, which its name ends with where a run of another identity has it.

        The search by record finds a run that was created by a process killed before it could
        note the id.
        """
        run = self._find(run_id) or self._search(experiment_id, record)
        if run is None:
            tags = {RECORD_TAG: record} | ({IDENTITY_TAG: identity} if identity else {})
            began, name = _milliseconds(started), visible(name)
            if identity and self._is_of_another(experiment_id, name, identity):
                name = f"{name} {identity[:6]}"
            return self._client.create_run(experiment_id, began, tags, run_name=name)
        self._client.update_run(run.info.run_id, status="RUNNING")
        return run

    def log_params(self, run: Run, params: Mapping[str, object]) -> None:
        """Log those params that the run does not have: MLflow lets none be changed."""
        missing = [
            Param(key, value[:MAX_PARAM_VAL_LENGTH])
            for key, value in _texts(params).items()
            if key not in run.data.params
        ]
        for batch in _batches(missing, MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(run.info.run_id, params=batch)

    def log_datasets(self, run: Run, datasets: Sequence[Mapping[str, str]]) -> None:
        """Log what a run reads as its inputs, each with `name`, `digest`, `source`, `context`."""
        inputs = [
            DatasetInput(
                Dataset(
                    name=visible(each["name"]),
                    digest=each["digest"],
                    source_type="local",
                    source=json.dumps({"uri": visible(each["source"])}),
                ),
                [InputTag(CONTEXT_TAG, each["context"])],
            )
            for each in datasets
        ]
        if inputs and not (run.inputs and run.inputs.dataset_inputs):
            self._client.log_inputs(run.info.run_id, inputs)

    def set_tags(self, run_id: str, tags: Mapping[str, object]) -> None:
        """Set tags, over old values of theirs."""
        entities = [RunTag(key, value[:MAX_TAG_VAL_LENGTH]) for key, value in _texts(tags).items()]
        for batch in _batches(entities, MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(run_id, tags=batch)

    def describe(self, run_id: str, text: str) -> None:
        """Give the run a description in Markdown."""
        self.set_tags(run_id, {NOTE_TAG: text})

    def drop_tag(self, run: Run, key: str) -> None:
        """Remove a tag that the run had when it was opened."""
        if key in run.data.tags:
            self._client.delete_tag(run.info.run_id, key)

    def tag_if_there(self, run_id: str, key: str, value: str, over: bool) -> None:
        """Set a tag, if the run is there; over: also one that it has."""
        run = self._find(run_id)
        if run is not None and (over or key not in run.data.tags):
            self._client.set_tag(run_id, key, value)

    def steps(self, run_id: str, metric: str) -> set[int]:
        """The steps at which the run has a value of the metric."""
        return {point.step for point in self._client.get_metric_history(run_id, metric)}

    def log_values(self, run_id: str, values: Sequence[Value]) -> None:
        """Send values. A SQL store keeps one of several that are equal in time and value."""
        metrics = [
            Metric(value.name, value.value, round(value.time * 1000), value.step)
            for value in values
        ]
        for batch in _batches(metrics, MAX_METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=batch)

    def log_artifact(self, run_id: str, path: Path, folder: str | None) -> None:
        """Copy a file, or the content of a directory, into the run's `folder`.

        Weights that the run has stay: they are large, and no run ever has others.
        """
        if path.name == WEIGHTS and self._has_file(run_id, path):
            return
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), folder)
        else:
            self._client.log_artifact(run_id, str(path), folder)

    def terminate(self, run_id: str, status: str, ended: float | None = None) -> None:
        """End the run as FINISHED, FAILED or KILLED; ended: seconds, as of `open_run`."""
        self._client.set_terminated(run_id, status, _milliseconds(ended))

    def _tag_experiment(self, found: Experiment, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if key not in found.tags:
                self._client.set_experiment_tag(found.experiment_id, key, value)

    def _create_experiment(self, name: str, tags: Mapping[str, str]) -> str:
        root = self._artifact_root
        location = (root / name).as_uri() if root else None
        try:
            return self._client.create_experiment(name, location, tags=KIND | dict(tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another process was faster.
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _find(self, run_id: str | None) -> Run | None:
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _has_file(self, run_id: str, path: Path) -> bool:
        found = {each.path: each.file_size for each in self._client.list_artifacts(run_id)}
        return found.get(path.name) == path.stat().st_size

    def _is_of_another(self, experiment_id: str, name: str, identity: str) -> bool:
        """Whether a run of another identity has the name, as far as MLflow can be asked for it."""
        if "'" in name and '"' in name:
            return True
        named = f"attributes.run_name = {_quoted(name)}"
        other = f"tags.`{IDENTITY_TAG}` != {_quoted(identity)}"
        return bool(
            self._client.search_runs([experiment_id], f"{named} AND {other}", max_results=1)
        )

    def _search(self, experiment_id: str, record: str) -> Run | None:
        of_record = f"tags.`{RECORD_TAG}` = {_quoted(record)}"
        runs = self._client.search_runs([experiment_id], of_record, max_results=1)
        return runs[0] if runs else None


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """Values as text that any database holds, under names that MLflow takes."""
    return {
        NOT_IN_NAMES.sub(lambda sign: f"_x{ord(sign[0]):x}_", key): visible(str(value))
        for key, value in values.items()
    }


def _quoted(text: str) -> str:
    mark = '"' if "'" in text else "'"
    return f"{mark}{text}{mark}"


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
