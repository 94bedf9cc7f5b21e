"""How an MLflow store is reached: quickly or not at all, one process at a time where it is a file.

Importing this module does not import MLflow.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pvt_bench.escaping import one_line
from pvt_bench.tracking.addresses import SQLITE, sqlite_file, without_password

if TYPE_CHECKING:
    from pvt_bench.tracking.store import Store

# Read by MLflow when it is imported or asked; what the user has set stays.
QUIET_AND_QUICK = {
    # One request is tried once: what fails is sent with the next push, training does not wait.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
# Eight runs on one host share a sqlite file, and each holds it for well under a second a push.
SQLITE_PATIENCE_S = 60.0


def quiet_and_quick() -> None:
    """Set MLflow's environment variables; call it before `import mlflow`."""
    for name, value in QUIET_AND_QUICK.items():
        os.environ.setdefault(name, value)


def open_store(uri: str, results_dir: Path) -> "Store":
    """Open a store; a file's while `exclusive` holds it. Its runs' files lie among the results
    where the store is a file too."""
    quiet_and_quick()
    from pvt_bench.tracking.store import Store

    return Store(uri, results_dir / "mlflow-artifacts" if sqlite_file(uri) else None)


@contextmanager
def exclusive(uri: str) -> Iterator[None]:
    """Hold the store where it is a sqlite file.

    Processes that open a fresh one at once die over its schema; later ones wait for each other.
    """
    database = sqlite_file(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=SQLITE_PATIENCE_S):
        yield
    as_written = Path(uri.removeprefix(SQLITE)).parent
    if as_written != database.parent:
        # MLflow makes the folder of the address as it is written, escapes and all.
        with suppress(OSError):
            os.removedirs(as_written)


def reason(error: Exception) -> str:
    """Why a store did not take something, on one line and without its password."""
    # Of a failed request the innermost cause comes last, after the whole address.
    text = str(error).rpartition("Caused by ")[2].strip() or type(error).__name__
    return without_password(one_line(text.splitlines()[0]))[:300]
