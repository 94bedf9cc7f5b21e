"""A SLURM for tests to fill, preempt and cancel in, one for each test process.

A test module asks for it with `pytest_plugins = ("slurm_cluster",)` and then for the fixture
`cluster`; SLURM_CONF is set while a test uses it, for its own process and for those it starts.
"""

from collections.abc import Iterator

import pytest
from conftest import needs
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
