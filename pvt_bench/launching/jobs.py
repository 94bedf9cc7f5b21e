"""What schedulers say of jobs: whether they still come or go, and how they ended."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pvt_bench.launching.asking import NoAnswer, Spoken, ask_slurm, lines_of, quote
from pvt_bench.tracking.holder import MACHINE, is_alive

# What a record notes of the job that runs it.
Launch = dict[str, Any]

# Of a process of this machine that is not there any more.
GONE = "GONE"
# Of a job of SLURM's, which does not answer: the job may be anything.
UNKNOWN = "UNKNOWN"
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
    """state: in SLURM's words, GONE, UNKNOWN, or empty where the scheduler has forgotten the job or
    nobody here can tell; reason: why it waits, or what SLURM said instead of an answer."""

    state: str = ""
    reason: str = ""

    @property
    def alive(self) -> bool:
        """Whether the job is waiting or at work, as far as is known."""
        return bool(self.state) and self.state not in ENDED

    @property
    def unknown(self) -> bool:
        """Whether SLURM did not answer."""
        return self.state == UNKNOWN


def ask(launches: Iterable[Mapping[str, Any]]) -> dict[str, Job]:
    """The jobs of launches, by `job_key`; SLURM is asked once for all."""
    wanted = list(launches)
    slurm = {job_key(launch) for launch in wanted if launch.get("launcher") == "slurm"}
    known = _ask_slurm(slurm) if slurm else {}
    for launch in wanted:
        if launch.get("launcher") != "slurm":
            known[job_key(launch)] = _find_process(launch)
    return known


def job_key(launch: Mapping[str, Any]) -> str:
    """What tells a launch's job apart."""
    if launch.get("launcher") == "slurm":
        return str(launch.get("job"))
    return " ".join(str(launch.get(key)) for key in (*MACHINE, "pid", "began"))


def _ask_slurm(jobs: set[str]) -> dict[str, Job]:
    # One number of an array is enough to hear of all of it.
    numbers = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
    try:
        return ask_slurm([*command, f"--jobs={numbers}"], _read_jobs)
    except NoAnswer as error:
        return dict.fromkeys(jobs, Job(UNKNOWN, str(error)))


def _read_jobs(spoken: Spoken) -> dict[str, Job]:
    # SLURM forgets a job some minutes after its end, and then calls its number invalid.
    if "Invalid job id" in spoken.stderr:
        return {}
    lines = [line.split("|", 2) for line in lines_of(spoken)]
    if any(len(line) < 3 or not re.fullmatch(r"[A-Z_]+", line[1]) for line in lines):
        raise NoAnswer(quote(spoken))
    return {job: Job(state, reason) for job, state, reason in lines}


def _find_process(launch: Mapping[str, Any]) -> Job:
    alive = is_alive(launch)
    return Job() if alive is None else Job("RUNNING" if alive else GONE)
