"""A SLURM for tests to fill, preempt and cancel in, one for each test process.

A test module asks for it with `pytest_plugins = ("slurm_cluster",)` and then for the fixture
`cluster`; SLURM_CONF is set while a test uses it, for its own process and for those it starts.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import StandIn, needs
from slurm.cluster import Cluster, logs, missing, start, stop, wait


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of this test process, started where the first test asks for it."""
    needs(not missing(), missing())
    directory = tmp_path_factory.mktemp("slurm")
    yield Cluster(start(directory))
    stop(directory)


@pytest.fixture
def cluster(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, without jobs; what its daemons logged is shown where the test fails."""
    monkeypatch.setenv("SLURM_CONF", str(slurm.config))
    yield slurm
    print(slurm.command("squeue", "--states=all"), logs(slurm.config.parent), sep="\n")
    slurm.command("scancel", "--me")
    wait(lambda: not slurm.command("squeue", "--noheader"), "the end of the test's jobs")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Puts programs in the place of SLURM's; `cluster` itself goes on with the real ones."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, line: str, times: int = 1000) -> Path:
        (folder / name).unlink(missing_ok=True)
        real, calls = shutil.which(name), folder / f"{name}.calls"
        calls.write_text("")
        (folder / name).write_text(
            f"#!/bin/sh\necho >> {calls}\n"
            f"if [ $(wc -l < {calls}) -le {times} ]; then {line.replace('REAL', str(real))}; fi\n"
            f'exec {real} "$@"\n'
        )
        (folder / name).chmod(0o755)
        return calls

    return put
