"""How a cell stands, from its record and its job; without torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvt_bench.launching.jobs import GONE, Job, ask, job_key
from pvt_bench.launching.sweep import Cell, Sweep
from pvt_bench.tracking.heartbeat import is_fresh
from pvt_bench.tracking.record import HEARTBEAT

DONE, RUNNING, QUEUED, UNKNOWN, STOPPED, FAILED, LOST = (
    "done",
    "running",
    "queued",
    "unknown",
    "stopped",
    "failed",
    "lost",
)
LAST_LINES = 20
# These change by themselves; the others wait for the command to be typed again.
UNDER_WAY = (RUNNING, QUEUED, UNKNOWN)
FAILURES = (FAILED, LOST, STOPPED)


@dataclass(frozen=True)
class State:
    """word: one of those above; why: of one that waits, is unknown or went wrong; job: SLURM's last
    word."""

    cell: Cell
    word: str
    why: str
    status: Mapping[str, Any]
    job: Job


def look(sweep: Sweep) -> list[State]:
    """How all cells stand now; the scheduler is asked once."""
    statuses = [sweep.status(cell) for cell in sweep.cells]
    launches = [status["launch"] for status in statuses if status.get("launch")]
    unfinished = [s["launch"] for s in statuses if s.get("launch") and s["state"] != "finished"]
    jobs = ask(unfinished) if launches else {}
    return [
        _state(cell, status, jobs, is_fresh(sweep.record(cell) / HEARTBEAT))
        for cell, status in zip(sweep.cells, statuses, strict=True)
    ]


def _state(cell: Cell, status: Mapping[str, Any], jobs: Mapping[str, Job], beats: bool) -> State:
    launch = status.get("launch")
    job = jobs.get(job_key(launch), Job()) if launch else Job()
    word, why = _word(status, job, beats)
    return State(cell, word, why, status, job)


def _word(status: Mapping[str, Any], job: Job, beats: bool) -> tuple[str, str]:
    state, error = status["state"], status.get("error") or ""
    if state == "finished":
        return DONE, ""
    # A job that SLURM has requeued waits again, whatever its last attempt has noted.
    if job.state == "PENDING":
        return QUEUED, job.reason
    if state == "running" and beats and (job.alive or not job.state):
        return RUNNING, ""
    if state in ("queued", "interrupted", "running") and job.unknown:
        return UNKNOWN, f"SLURM does not answer ({job.reason})"
    if state in ("queued", "interrupted") and job.alive:
        return QUEUED, "starting"
    if state == "failed":
        return FAILED, error
    if state == "interrupted":
        return STOPPED, error
    if state == "missing":
        return LOST, error
    return LOST, _how_lost(status, job)


def _how_lost(status: Mapping[str, Any], job: Job) -> str:
    if job.alive:
        return "the job runs, but its process gives no sign of life"
    by_slurm = job.state not in ("", GONE)
    ended = f"the job ended as {job.state}" if by_slurm else "its process is gone"
    if status["state"] != "running":
        ended += " before it could write to the record"
    words = _last_words((status.get("launch") or {}).get("log"))
    return f"{ended}: {words}" if words else ended


def _last_words(log: str | None) -> str:
    """What the scheduler wrote into a job's log at its end: its reason, if it is there at all."""
    if not log or not Path(log).is_file():
        return ""
    lines = Path(log).read_text(errors="replace").splitlines()[-LAST_LINES:]
    errors = [line.strip() for line in lines if "error:" in line.lower()]
    # Of a job killed for its memory, SLURM's state says no more than that it failed.
    about_memory = [line for line in errors if re.search(r"memory|oom", line, re.IGNORECASE)]
    return (about_memory or errors or [""])[-1]
