"""The command in a fork of a process that has the libraries imported, which takes most of its time.

It is the real command otherwise: its own process, words, directory, environment and output.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LIBRARIES = ["torch", "torchvision", "timm", "lightning.pytorch", "mlflow", "sqlalchemy", "hydra"]


def run_forked(
    words: Sequence[str], directory: Path, environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m pvt_bench ...` in a directory and wait for its end.

    subprocess.TimeoutExpired after so many seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    outputs = [directory / f".{name}" for name in ("stdout", "stderr")]
    process = context.Process(target=_be_the_command, args=(words, directory, environment, outputs))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise subprocess.TimeoutExpired(list(words), timeout)
    stdout, stderr = (path.read_text() for path in outputs)
    for path in outputs:
        path.unlink()
    code = process.exitcode
    assert code is not None
    return subprocess.CompletedProcess(list(words), code, stdout, stderr)


def _be_the_command(
    words: Sequence[str], directory: Path, environment: dict[str, str], outputs: Sequence[Path]
) -> None:
    for path, stream in zip(outputs, (sys.stdout, sys.stderr), strict=True):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    # A child of a fork server would start its own children by one too.
    multiprocessing.set_start_method(None, force=True)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = str(directory)
    sys.argv = ["pvt_bench", *words]
    try:
        runpy.run_module("pvt_bench", run_name="__main__", alter_sys=True)
    finally:
        # A process of multiprocessing leaves without what a command does at its end.
        atexit._run_exitfuncs()
