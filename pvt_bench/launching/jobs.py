"""What schedulers say of jobs: whether they still come or go, and how they ended."""

import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import psutil

# Of a process of this machine that is not there any more.
GONE = "GONE"
# SLURM's words for a job that will not run on by itself, and ours.
ENDED = {
    GONE,
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}


class Job(NamedTuple):
    """state: in SLURM's words, GONE, or empty where the scheduler has forgotten the job or nobody
    here can tell; reason: why it waits."""

    state: str = ""
    reason: str = ""

    @property
    def alive(self) -> bool:
        """Whether the job is waiting or at work."""
        return bool(self.state) and self.state not in ENDED


def ask(launches: Iterable[Mapping[str, Any]]) -> dict[str, Job]:
    """The jobs of launches, by `job_key`; SLURM is asked once for all."""
    wanted = list(launches)
    slurm = {launch["job"] for launch in wanted if launch["launcher"] == "slurm"}
    known = _ask_slurm(slurm) if slurm else {}
    for launch in wanted:
        key = job_key(launch)
        if launch["launcher"] == "slurm":
            known.setdefault(key, Job())
        else:
            known[key] = _find_process(launch)
    return known


def job_key(launch: Mapping[str, Any]) -> str:
    """What tells a launch's job apart."""
    return (
        str(launch["job"]) if launch["launcher"] == "slurm" else f"{launch['host']} {launch['pid']}"
    )


def _ask_slurm(jobs: Iterable[str]) -> dict[str, Job]:
    if shutil.which("squeue") is None:
        raise FileNotFoundError("squeue is not here: SLURM's jobs cannot be asked for")
    # One number of an array is enough to hear of all of it.
    numbers = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
    # SLURM forgets a job some minutes after its end, and then calls its number invalid.
    answer = subprocess.run(
        [*command, f"--jobs={numbers}"], capture_output=True, text=True, timeout=60
    )
    if answer.returncode and "Invalid job id" not in answer.stderr:
        raise OSError(f"squeue: {answer.stderr.strip()}")
    lines = [line.split("|", 2) for line in answer.stdout.splitlines()]
    return {job: Job(state, reason) for job, state, reason in lines}


def _find_process(launch: Mapping[str, Any]) -> Job:
    if launch["host"] != socket.gethostname():
        return Job()
    return Job("RUNNING" if psutil.pid_exists(launch["pid"]) else GONE)
