"""The attempt of a run from its begin to its end, whichever way it ends."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pvt_bench.errors import Failed, InputError, Interrupted
from pvt_bench.screen import log
from pvt_bench.tracking.addresses import without_password
from pvt_bench.tracking.environment import source_version
from pvt_bench.tracking.lease import TakenOver
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.reading import LOG
from pvt_bench.tracking.record import Record

# submitit leaves by SystemExit where it is told to make room before the training has begun.
AT_ONCE = (KeyboardInterrupt, SystemExit)
# Errors whose message says all that there is to know.
FORESEEN = (InputError, Failed, FloatingPointError)


@contextmanager
def ending(record: Record, mirror: Mirror) -> Iterator[None]:
    """Begin the attempt; whatever ends it too early is told to the record and to MLflow."""
    record.begin()
    with log.kept_in(record.directory / LOG, without_password):
        log.write(f"attempt {record.status['attempt']}, commit {source_version()}")
        try:
            mirror.start()
            yield
        except TakenOver:
            raise
        except BaseException as error:
            state, why = _judge(error)
            foreseen = state == "interrupted" or isinstance(error, FORESEEN)
            log.write(why if foreseen else "".join(traceback.format_exception(error)))
            record.update(state=state, error=why)
            mirror.finish(state)
            raise


def _judge(error: BaseException) -> tuple[str, str]:
    """The state in which an error leaves a run, and the error in words."""
    if isinstance(error, AT_ONCE):
        return "interrupted", "stopped at once"
    state = "interrupted" if isinstance(error, Interrupted) else "failed"
    return state, str(error) or type(error).__name__
