"""The mirror of a record in MLflow. Losing it loses nothing: the record has it all."""

import logging
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pvt_bench.tracking.addresses import check_uri, without_password
from pvt_bench.tracking.describing import (
    ENDED,
    describe_finished,
    describe_unfinished,
    experiment_tags,
    tags_at_end,
)
from pvt_bench.tracking.publishing import (
    ARTIFACTS,
    COMMIT_TAG,
    COSTS,
    ERROR_TAG,
    FOLDERS,
    STATE_TAG,
    SUPERSEDED_TAG,
    WEIGHTS,
    Presentation,
)
from pvt_bench.tracking.reaching import exclusive, open_store, reason
from pvt_bench.tracking.reading import mlflow_run
from pvt_bench.tracking.record import Record
from pvt_bench.tracking.values import Value, values_of

if TYPE_CHECKING:
    from pvt_bench.tracking.store import Store

RETRY_AFTER_S = 180.0

logger = logging.getLogger(__name__)


class Mirror:
    """Keeps one MLflow run equal to a record, as far as durable checkpoints reach.

    No method raises because of the store; `push` never waits for it, the others not for long.
    After a failure it is left alone for some minutes, except by `start` and `finish`; everything
    unsent goes with the next success, in this process or a later one. Each metric has one value per
    step, however often a process was killed between sending and noting.

    Args:
        record: an open record.
        uri: an address that `check_uri` accepts; None where another process mirrors the record.
        shown: how the run is shown; its params are written once, its tags at every start.
        retry_after: seconds for which a store that failed is left alone.
    """

    def __init__(
        self,
        record: Record,
        uri: str | None,
        shown: Presentation,
        retry_after: float = RETRY_AFTER_S,
    ) -> None:
        if uri is not None:
            check_uri(uri)
        self._record, self._uri, self._shown = record, uri or "", shown
        self._address = without_password(self._uri)
        self._retry_after = retry_after
        self._description = ""
        noted = record.status.get("mlflow") or {}
        self._due: float = math.inf if noted.get("due") == "all" else noted.get("due", -1)
        self._artifacts: list[tuple[Path, str | None]] = []
        self._end: str | None = None
        self._failed_at: float | None = None
        self._store: Store | None = None
        self._run_id: str | None = None
        self._sent: dict[str, set[int]] = {}
        self._left_out: set[str] = set()
        # Up to where all points have been sent, and after how many rewrites of the file.
        self._read_to, self._rewrites = 0, record.metrics.rewrites
        self._sending: Future[None] | None = None

    @property
    def behind(self) -> bool:
        """Whether something that was to be sent is not in the store."""
        return self._failed_at is not None

    def start(self) -> None:
        """Find or create the run, set it to RUNNING, and send what an earlier process could not."""
        self.settle()
        self._describe_unfinished("running")
        self._send(now=True)

    def push(self, up_to_step: int) -> None:
        """Send the points up to a step, the one of a durable checkpoint, while training goes on."""
        self._due = max(self._due, up_to_step)
        # What comes while the store still takes the last points goes with the next ones.
        if self._uri and (self._sending is None or self._sending.done()):
            sender = ThreadPoolExecutor(1, "mirror")
            self._sending = sender.submit(self._send)
            sender.shutdown(wait=False)

    def settle(self) -> None:
        """Wait until what is due has arrived, or has failed to."""
        if self._sending is not None:
            self._sending.result()
            self._sending = None
            # A push that came meanwhile was left to the next one.
            if (self._record.status.get("mlflow") or {}).get("due") != self._due:
                self._send()

    def log_artifacts(self, *paths: Path, folder: str | None = None) -> None:
        """Copy files, and the content of directories, into a folder of the run's artifacts.

        Raises:
            FileNotFoundError: a path does not exist.
        """
        for path in paths:
            path.stat()
        self.settle()
        self._artifacts += [(path, folder) for path in paths]
        self._send()

    def describe(self, text: str) -> None:
        """Give the run a description in Markdown; `{run_id}` in it is filled in when it is sent."""
        self.settle()
        self._description = text

    def publish(self) -> None:
        """Send all of a finished record that the store has not yet, and end the run."""
        directory = self._record.directory
        for path in (directory / name for name in ARTIFACTS):
            if path.exists():
                self.log_artifacts(path)
        for folder in FOLDERS:
            if (directory / folder).exists():
                self.log_artifacts(directory / folder, folder=folder)
        self.describe(describe_finished(directory, self._shown))
        self.finish("finished")
        # Last of all: the run is FINISHED even where the store takes no file of that size.
        if self._shown.weights and (directory / WEIGHTS).exists():
            self.log_artifacts(directory / WEIGHTS)
        sent = not self.behind
        self._record.update(mirrored=sent, mirrored_weights=sent and self._shown.weights)

    def finish(self, state: str) -> None:
        """End the run in the record's `state`: finished (all points are sent), failed, interrupted.

        A later `start` opens it again.
        """
        self.settle()
        self._end = state
        if state == "finished":
            self._due = math.inf
        else:
            self._describe_unfinished(state)
        self._send(now=True)

    def _describe_unfinished(self, state: str) -> None:
        record = self._record
        self._description = describe_unfinished(record.directory, self._shown, state, record.status)

    def _send(self, now: bool = False) -> None:
        if not self._uri:
            return
        self._record.check_lease()
        if self._failed_at is not None and not now and not self._rested(self._failed_at):
            self._note(behind=True)
            return
        try:
            with exclusive(self._uri):
                self._bring_up()
        # Whatever a store, a driver or a network may raise: the run is worth more than its mirror.
        except Exception as error:
            self._fall_behind(error)
        else:
            self._catch_up()

    def _rested(self, failed_at: float) -> bool:
        return time.monotonic() - failed_at >= self._retry_after

    def _bring_up(self) -> None:
        store, run_id = self._opened()
        self._send_points(store, run_id)
        while self._artifacts:
            store.log_artifact(run_id, *self._artifacts[0])
            del self._artifacts[0]
        if self._description:
            store.describe(run_id, self._description.replace("{run_id}", run_id))
            self._description = ""
        if self._end is not None:
            # What is sent long afterwards shall not seem to have run until now.
            ended = max((point.time for point in self._record.metrics.tail()), default=None)
            store.set_tags(run_id, tags_at_end(self._end, self._record.status))
            store.terminate(run_id, ENDED[self._end], ended)
            self._end = None

    def _opened(self) -> "tuple[Store, str]":
        if self._store is not None and self._run_id is not None:
            return self._store, self._run_id
        status, shown, identity = self._record.status, self._shown, self._record.identity
        store = open_store(self._uri, self._record.results_dir)
        run = store.open_run(
            store.experiment(shown.experiment, experiment_tags(shown)),
            shown.name,
            mlflow_run(status),
            f"{identity} {status['created']}",
            datetime.fromisoformat(status.get("started") or status["created"]).timestamp(),
            identity,
        )
        self._store, self._run_id = store, run.info.run_id
        self._note(behind=True)
        store.log_params(run, shown.params)
        store.log_datasets(run, shown.datasets)
        store.set_tags(self._run_id, {**self._first_tags(), **shown.tags})
        store.drop_tag(run, ERROR_TAG)
        for old in status.get("superseded", []):
            store.tag_if_there(old, SUPERSEDED_TAG, self._run_id, over=True)
        return store, self._run_id

    def _first_tags(self) -> dict[str, object]:
        status = self._record.status
        noted = {name: status.get(name) for name in ("commit", "host", "attempt")}
        version = {COMMIT_TAG: status["commit"]} if status.get("commit") else {}
        return {**noted, **version, "identity": self._record.identity, STATE_TAG: "running"}

    def _send_points(self, store: "Store", run_id: str) -> None:
        unsent = []
        values, read_to = self._due_values()
        for value in values:
            if value.name not in self._sent:
                self._sent[value.name] = store.steps(run_id, value.name)
            sent = self._sent[value.name]
            # Of a figure at step 0 a store may have the value at another step, of code of before.
            if value.step not in sent and not (value.step == 0 and sent):
                sent.add(value.step)
                unsent.append(value)
        store.log_values(run_id, unsent)
        self._read_to = read_to

    def _due_values(self) -> tuple[list[Value], int]:
        """The values that are due, and the byte up to where none is left to be sent later."""
        metrics, held = self._record.metrics, False
        values: list[Value] = []
        if metrics.rewrites != self._rewrites:
            self._read_to, self._rewrites = 0, metrics.rewrites
        read_to = self._read_to
        in_table = (self._record.directory / COSTS).exists()
        for point, end in metrics.read_from(read_to):
            held = held or point.step > self._due
            read_to = read_to if held else end
            if point.step <= self._due:
                values += values_of(point, in_table, self._leave_out)
        return values, read_to

    def _fall_behind(self, error: Exception) -> None:
        # A request may have arrived though its answer did not: next time the store is asked.
        self._store, self._run_id = None, None
        self._sent.clear()
        self._read_to = 0
        if not self.behind:
            logger.warning(
                "MLflow at %s does not take the run (%s). Nothing is lost: the points are in %s, "
                "and are sent later on, or when the same command is typed again.",
                self._address,
                reason(error),
                self._record.directory / "metrics.jsonl",
            )
        self._failed_at = time.monotonic()
        self._note(behind=True)

    def _catch_up(self) -> None:
        if self.behind:
            logger.warning("MLflow at %s is reached again and up to date.", self._address)
        self._failed_at = None
        self._note(behind=False)

    def _note(self, behind: bool) -> None:
        known = self._record.status.get("mlflow") or {}
        note = {
            "run_id": self._run_id or known.get("run_id"),
            "uri": self._address,
            "experiment": self._shown.experiment,
            "due": "all" if math.isinf(self._due) else self._due,
            "behind": behind,
        }
        if note != known:
            self._record.update(mlflow=note)

    def _leave_out(self, name: str, reason: str) -> None:
        if name not in self._left_out:
            logger.warning("%s is left out of MLflow at a step: %s.", name, reason)
            self._left_out.add(name)
