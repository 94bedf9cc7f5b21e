"""The SLURM of the tests: it starts, runs, requeues and preempts jobs, and leaves nothing."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import needs
from slurm.cluster import Cluster, missing, start, wait

pytest_plugins = ("slurm_cluster",)

SCRIPT = Path(__file__).with_name("slurm") / "cluster.py"


def processes(directory: Path) -> list[str]:
    """The processes that were started with this directory in their environment or command."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in words:
            found.append((process / "comm").read_text().strip())
    return sorted(found)


def script(action: str, directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, SCRIPT, action, directory], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_script_starts_a_cluster_and_leaves_no_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    needs(not missing(), missing())
    directory = tmp_path_factory.mktemp("slurm")
    config = directory / "slurm.conf"
    assert script("start", directory) == f"export SLURM_CONF={config}\n"
    try:
        Cluster(config).submit("sleep 60")
        expected = {"munged", "slurmctld", "slurmd", "slurmstepd", "sleep"}
        wait(lambda: expected <= set(processes(directory)), "the daemons and a job")
    finally:
        script("stop", directory)
    assert processes(directory) == []


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 70 characters"):
        start(tmp_path / ("x" * 70))
    assert not list(tmp_path.iterdir())


def test_jobs_end_as_their_commands_do(cluster: Cluster) -> None:
    good, bad = cluster.submit("echo $SLURM_JOB_ID"), cluster.submit("exit 3")
    assert cluster.wait_for(good, "COMPLETED")["ExitCode"] == "0:0"
    assert cluster.output(good) == f"{good}\n"
    assert cluster.wait_for(bad, "FAILED")["ExitCode"] == "3:0"
    assert os.environ["SLURM_CONF"] == str(cluster.config)


def test_what_slurm_refuses_is_told(cluster: Cluster) -> None:
    with pytest.raises(RuntimeError, match="invalid partition specified: nowhere"):
        cluster.submit("true", "--partition=nowhere")


def test_two_jobs_have_a_gpu_each(cluster: Cluster) -> None:
    jobs = [
        cluster.submit("echo $CUDA_VISIBLE_DEVICES; exec sleep 60", "--gres=gpu:1")
        for _ in range(2)
    ]
    third = cluster.submit("true", "--gres=gpu:1")
    for job in jobs:
        cluster.wait_for(job, "RUNNING")
    assert cluster.wait_for(third, "PENDING")["Reason"] in ("Resources", "Priority")
    wait(lambda: sorted(map(cluster.output, jobs)) == ["0\n", "1\n"], "a GPU of its own")


def test_requeued_and_preempted_jobs_start_again(cluster: Cluster) -> None:
    # It requeues itself when told, as submitit's jobs do; a plain one has 20 s left.
    task = 'trap "echo told; scontrol requeue $SLURM_JOB_ID" USR2; sleep 60 & wait'
    line = f"echo start $SLURM_RESTART_COUNT; exec srun sh -c {shlex.quote(task)}"
    job = cluster.submit(line, "--partition=low", "--signal=USR2@60", "--time=60")
    wait(lambda: cluster.output(job) == "start\n", "the first start")
    cluster.requeue(job)
    wait(lambda: "start 1\n" in cluster.output(job), "the second start")
    assert "told" not in cluster.output(job)
    cluster.preempt(job)
    wait(lambda: "start 2\n" in cluster.output(job), "the third start")
    assert "told\n" in cluster.output(job)
    assert cluster.show(job)["Restarts"] == "2"
