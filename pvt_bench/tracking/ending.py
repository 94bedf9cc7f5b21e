"""The attempt of a run from its begin to its end, whichever way it ends."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pvt_bench import processes
from pvt_bench.errors import Failed, InputError, Interrupted
from pvt_bench.tracking.addresses import without_password
from pvt_bench.tracking.describing import TRACEBACK
from pvt_bench.tracking.lease import TakenOver
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.record import Record

# submitit leaves by SystemExit where it is told to make room before the training has begun.
STOPS = (Interrupted, KeyboardInterrupt, SystemExit)
# Errors whose message says all that there is to know.
FORESEEN = (*STOPS, InputError, Failed, FloatingPointError)


@contextmanager
def ending(record: Record, mirror: Mirror) -> Iterator[None]:
    """Begin the attempt; whatever ends it too early is told to the record and to MLflow."""
    record.begin()
    try:
        _remove_traceback(record)
        mirror.start()
        yield
    except TakenOver:
        raise
    except BaseException as error:
        state = "interrupted" if isinstance(error, STOPS) else "failed"
        unnamed = "" if state == "interrupted" else type(error).__name__
        record.update(state=state, error=str(error) or unnamed)
        if not isinstance(error, FORESEEN):
            _keep_traceback(record, error)
        mirror.finish(state)
        raise


def _remove_traceback(record: Record) -> None:
    """Remove what an earlier attempt has left."""
    if processes.rank() == 0:
        (record.directory / TRACEBACK).unlink(missing_ok=True)


def _keep_traceback(record: Record, error: BaseException) -> None:
    if processes.rank() == 0:
        lines = without_password("".join(traceback.format_exception(error)))
        # On a full disk the error itself is the one to report.
        with suppress(OSError):
            (record.directory / TRACEBACK).write_text(lines, errors="backslashreplace")
