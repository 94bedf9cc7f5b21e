"""The command in a fork of a process that has the libraries imported, which takes most of its time.

It is the real command otherwise: its own process, words, directory, environment and output.
"""

import atexit
import multiprocessing
import os
import runpy
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LIBRARIES = [
    "torch", "torchvision.transforms.v2", "timm", "lightning.pytorch", "faster_coco_eval", "hydra",
    "matplotlib.pyplot", "mlflow", "mlflow.store.tracking.sqlalchemy_store",
]  # fmt: skip


class Forked:
    """A command at work, in a process group of its own: as much of Popen as the tests need."""

    def __init__(
        self,
        words: Sequence[str],
        directory: Path,
        environment: dict[str, str],
        outputs: Sequence[str] = ("output", "output"),
        module: str = "pvt_bench",
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        self.words = list(words)
        token = secrets.token_hex(4)
        self.outputs = [directory / f".{name}-{token}" for name in outputs]
        for path in self.outputs:
            path.touch()
        values = (module, words, directory, environment, self.outputs)
        self.process = context.Process(target=_be_the_command, args=values)
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, as Popen gives it; None while the command runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send the command's own process a signal, and not its group."""
        os.kill(self.pid, number)

    def communicate(self, timeout: float = 600) -> list[str]:
        """Wait for the end, and give what went to stdout and stderr.

        subprocess.TimeoutExpired after so many seconds.
        """
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise subprocess.TimeoutExpired(self.words, timeout)
        texts = [path.read_text() for path in self.outputs]
        for path in self.outputs:
            path.unlink(missing_ok=True)
        return texts


def run_forked(
    words: Sequence[str],
    directory: Path,
    environment: dict[str, str],
    timeout: float,
    module: str = "pvt_bench",
) -> subprocess.CompletedProcess[str]:
    """Run `python -m pvt_bench ...`, or another module, in a directory and wait for its end."""
    command = Forked(words, directory, environment, ("stdout", "stderr"), module)
    texts = command.communicate(timeout)
    assert command.returncode is not None
    return subprocess.CompletedProcess(command.words, command.returncode, *texts)


def _be_the_command(
    module: str,
    words: Sequence[str],
    directory: Path,
    environment: dict[str, str],
    outputs: Sequence[Path],
) -> None:
    for path, stream in zip(outputs, (sys.stdout, sys.stderr), strict=True):
        # For appending: both may be the same file.
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.setsid()
    # A child of a fork server would start its own children by one too.
    multiprocessing.set_start_method(None, force=True)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = str(directory)
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # A process of multiprocessing leaves without what a command does at its end.
        atexit._run_exitfuncs()
