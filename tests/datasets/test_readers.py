"""Processes that read images: where one fails, the run ends within seconds and says why."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import environment, needs
from test_run import QUICK, only_record, start, status, wait_for_step

from pvt_bench.datasets.loading import train_loader
from pvt_bench.errors import Failed, InputError
from pvt_bench.processes import spread
from pvt_bench.tracking.metrics import MetricsFile
from pvt_bench.training.readers import end_readers, failures_named

SECONDS = 10  # torch looks whether its processes are alive every five


def unsendable() -> None:
    class Local(Exception):
        """Pickle refuses it, as only this function knows the class."""

    raise Local("the reason")


def without_room() -> None:
    """No file may grow, in shared memory or anywhere else."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def without_sockets() -> None:
    """A socket's path has a hundred characters at most."""
    import multiprocessing
    import tempfile

    # Where sockets have had a folder before, they keep it.
    multiprocessing.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
    tempfile.tempdir = str(Path(tempfile.mkdtemp(), *["long"] * 30))
    Path(tempfile.tempdir).mkdir(parents=True)


FAILURES: dict[str, tuple[Any, type[Exception], str]] = {
    "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), Failed, "memory runs out"),
    "SIGBUS": (lambda: os.kill(os.getpid(), signal.SIGBUS), Failed, "/dev/shm"),
    "SIGSEGV": (lambda: os.kill(os.getpid(), signal.SIGSEGV), Failed, "Segmentation fault"),
    "exit": (lambda: os._exit(3), Failed, "trainer.workers=0"),
    "an error that cannot be sent": (unsendable, Failed, "its error is printed above"),
    "no room": (without_room, InputError, "TMPDIR"),
    "no sockets": (without_sockets, InputError, "short path"),
}


class Failing(torch.utils.data.Dataset[Any]):
    """Samples, at whose reading something happens to the process in the second batch."""

    def __init__(self, failure: Any) -> None:
        self.failure = failure

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if torch.utils.data.get_worker_info().id == 1:
            self.failure()
        return torch.zeros(1000), {}


@pytest.mark.parametrize("name", FAILURES)
def test_a_reader_that_fails_ends_the_reading(name: str) -> None:
    failure, kind, words = FAILURES[name]
    began = time.monotonic()
    iterator = iter(train_loader(Failing(failure), 2, seed=0, workers=2, first=0, stop=4))
    try:
        with pytest.raises(kind) as caught, failures_named():
            list(iterator)
    finally:
        end_readers()
        iterator._shutdown_workers()
    assert words in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert time.monotonic() - began < SECONDS


def last_step(tmp_path: Path) -> int:
    return list(MetricsFile(only_record(tmp_path) / "metrics.jsonl").read())[-1].step


def test_a_reader_that_is_killed(tmp_path: Path, results: Path, digits: Path) -> None:
    """As the kernel does when memory runs out."""
    words = (*QUICK, f"dataset.root={digits}", "trainer.log_every=1", "trainer.workers=2")
    process = start(tmp_path, *words, "schedule.steps=1000")
    wait_for_step(tmp_path, 1)
    psutil.Process(process.pid).children()[-1].kill()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1, output
    assert "error: " in output, output
    message = output[output.index("error: ") :]
    assert "A process that reads images was killed" in message
    assert "trainer.workers" in message
    assert "Traceback" not in output
    ended = status(only_record(tmp_path))
    assert ended["state"] == "failed"
    assert ended["error"] in message


def test_two_interrupts_end_a_run_whose_readers_hang(
    tmp_path: Path, results: Path, digits: Path
) -> None:
    words = (*QUICK, f"dataset.root={digits}", "trainer.log_every=1", "trainer.workers=2")
    process = start(tmp_path, *words, "schedule.steps=1000")
    wait_for_step(tmp_path, 1)
    for reader in psutil.Process(process.pid).children():
        reader.suspend()
    # Until all that was read before is used.
    step = -1
    while step != (step := last_step(tmp_path)):
        time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert status(only_record(tmp_path))["state"] == "interrupted"


def test_a_process_of_the_check_that_is_killed() -> None:
    with pytest.raises(Failed, match="memory runs out"):
        list(spread(os._exit, [9], 1))


# What a container has by default is 64 MB; here nothing fits.
SMALL_SHARED_MEMORY = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_SHARED_MEMORY, "sh")
SAME_SAMPLES = """
import os
import torch
from test_loading import Draws, _samples
from pvt_bench.datasets.loading import train_loader
from pvt_bench.datasets.views import View

class Large(Draws):
    def __getitem__(self, index):
        drawn, target = super().__getitem__(index)
        return drawn.repeat(10_000), target

def samples(workers):
    return _samples(train_loader(Large(), 3, seed=5, workers=workers, first=0, stop=6))

expected = samples(0)
assert len(expected) == 18
for workers in (2, 8):
    assert samples(workers) == expected

# What the readers tell of damaged images.
view = View(10**6, "skip", training=True)
if not os.fork():
    view.damaged[7] = True
    os._exit(0)
os.wait()
assert view.damaged.nonzero().tolist() == [[7]]
"""


def in_small_shared_memory(directory: Path, *words: str) -> str:
    possible = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    needs(possible, "a namespace with a /dev/shm of its own (unshare, mount)")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [*UNSHARE, sys.executable, *words],
        cwd=directory,
        env=environment(PYTHONPATH=path, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_samples_are_the_same_where_shared_memory_is_small(tmp_path: Path) -> None:
    """Through files, and in the main process where there is not even room for semaphores."""
    said = in_small_shared_memory(tmp_path, "-c", SAME_SAMPLES)
    assert said.count("warning") == 2
    assert "/dev/shm of 0.1 MB) has no room for a batch of 0.4 MB" in said
    assert "--shm-size" in said
    assert "trainer.workers=8 is not possible" in said


def test_a_run_where_shared_memory_is_small(tmp_path: Path, results: Path, digits: Path) -> None:
    words = (*QUICK, f"dataset.root={digits}", "schedule.steps=2", "trainer.workers=2")
    said = in_small_shared_memory(tmp_path, "-m", "pvt_bench", *words)
    assert said.count("go through files") == 1
    assert status(only_record(tmp_path))["state"] == "finished"
