"""Runs from an MLflow tracking server."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from pvt_bench.errors import InputError
from pvt_bench.report.sources.database import STATES, SWEEP
from pvt_bench.report.sources.loaded import INFO, Loaded, content_key
from pvt_bench.tracking.addresses import without_password
from pvt_bench.tracking.publishing import CONTEXT_TAG, RECORD_TAG, SUPERSEDED_TAG
from pvt_bench.tracking.reaching import quiet_and_quick

PAGE = 1000


class Server:
    """MLflow tracking server at `http://host:port`."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self.place = without_password(self._uri)

    def load(self) -> Loaded:
        """Read all runs of pvt-bench that were neither deleted nor started over."""
        with self._client() as client:
            names = {
                each.experiment_id: each.name
                for each in _pages(lambda **page: client.search_experiments(**page))
            }
            ours = f"tags.`{RECORD_TAG}` LIKE '%'"
            runs = [
                run
                for run in _pages(lambda **page: client.search_runs(list(names), ours, **page))
                if SUPERSEDED_TAG not in run.data.tags
                and not SWEEP.items() <= run.data.tags.items()
            ]
        infos = {run.info.run_id: self._info(run, names) for run in runs}
        return Loaded(
            pd.DataFrame.from_dict(infos, orient="index", columns=list(INFO)),
            pd.DataFrame.from_dict({r.info.run_id: _params(r) for r in runs}, orient="index"),
            pd.DataFrame.from_dict({r.info.run_id: r.data.metrics for r in runs}, orient="index"),
        )

    def history(self, run: Hashable, metrics: Sequence[str]) -> pd.DataFrame:
        """Metrics by step."""
        with self._client() as client:
            columns = {
                name: {each.step: each.value for each in client.get_metric_history(run, name)}
                for name in metrics
            }
        return pd.DataFrame({name: pd.Series(column) for name, column in columns.items()})

    def read(self, run: Hashable, name: str) -> str | None:
        """Text of an artifact."""
        with self._client() as client, TemporaryDirectory() as folder:
            if name not in {each.path for each in client.list_artifacts(run)}:
                return None
            return Path(client.download_artifacts(run, name, folder)).read_text()

    def file(self, run: Hashable, name: str) -> Path | None:
        """Nothing: artifacts are on the server."""
        return None

    def _info(self, run: Any, names: dict[str, str]) -> tuple[object, ...]:
        tags, about = run.data.tags, run.info
        info = {
            "run_id": about.run_id,
            "experiment": names[about.experiment_id],
            "name": about.run_name,
            "state": STATES[about.status],
            "started": pd.Timestamp(about.start_time, unit="ms", tz="UTC"),
            "link": f"{self.place}/#/experiments/{about.experiment_id}/runs/{about.run_id}",
        }
        return tuple(info.get(key, tags.get(key)) for key in INFO)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        quiet_and_quick()
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        from pvt_bench.tracking.deadlines import end_requests

        end_requests()
        try:
            yield MlflowClient(tracking_uri=self._uri)
        except MlflowException as error:
            reason = str(error).splitlines()[0].replace(self._uri, self.place)[:300]
            raise InputError(
                f"The tracking server {self.place} gives no valid answer ({reason}). Is it "
                "up, and is the address right? Without tracking.uri the records under results_dir "
                "are read."
            ) from error


def _params(run: Any) -> dict[str, str]:
    read = run.inputs.dataset_inputs if run.inputs else []
    contents = {
        content_key(tag.value): each.dataset.digest
        for each in read
        for tag in each.tags
        if tag.key == CONTEXT_TAG
    }
    return {**run.data.params, **contents}


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
