"""What schedulers say of jobs: whether they still come or go, and how they ended.

SLURM is asked with a time limit for each question, and again where no answer comes.
"""

import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pvt_bench.screen import say, warn
from pvt_bench.tracking.holder import MACHINE, is_alive

# A busy controller needs seconds; a question that hangs costs a short command all its patience.
ONE_QUESTION_S = 8.0
PATIENCE_S = 12.0
# Before something is submitted, or requeued: what is given up here is lost.
LONG_PATIENCE_S = 60.0
# Between two questions of one patience, and between two patiences.
FIRST_PAUSE_S, FIRST_REST_S, LONGEST_REST_S = 0.5, 5.0, 60.0
LONGEST_WORDS = 300

# Of a process of this machine that is not there any more.
GONE = "GONE"
# Of a SLURM job while SLURM does not answer: the job may be anything.
UNKNOWN = "UNKNOWN"
# SLURM's words for a job that will not run on by itself, and ours.
ENDED = {
    *(GONE, "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"),
}

# What a record notes of the job that runs it.
Launch = dict[str, Any]
Answer = TypeVar("Answer")
Spoken = subprocess.CompletedProcess[str]


class Job(NamedTuple):
    """state: in SLURM's words, GONE, UNKNOWN, or empty where the scheduler has forgotten the job or
    nobody here can tell; reason: why it waits, or what SLURM said instead of an answer."""

    state: str = ""
    reason: str = ""

    @property
    def alive(self) -> bool:
        """Whether the job is waiting or at work, as far as is known."""
        return bool(self.state) and self.state not in ENDED


def ask(launches: Iterable[Mapping[str, Any]]) -> dict[str, Job]:
    """The jobs of launches, by `job_key`; SLURM is asked once for all."""
    jobs: dict[str, Job] = {}
    slurm: set[str] = set()
    for launch in launches:
        key = job_key(launch)
        if launch.get("launcher") == "slurm":
            slurm.add(key)
        else:
            alive = is_alive(launch)
            jobs[key] = Job() if alive is None else Job("RUNNING" if alive else GONE)
    return jobs | (_ask_of_jobs(slurm) if slurm else {})


def job_key(launch: Mapping[str, Any]) -> str:
    """What tells a launch's job apart."""
    if launch.get("launcher") == "slurm":
        return str(launch.get("job"))
    return " ".join(str(launch.get(key)) for key in (*MACHINE, "pid", "began"))


def _ask_of_jobs(jobs: set[str]) -> dict[str, Job]:
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
    rows = rows_of(spoken)
    if not all(re.fullmatch(r"[A-Z_]+", state) for _, state, _ in rows):
        raise NoAnswer(quote(spoken))
    return {job: Job(state, reason) for job, state, reason in rows}


class NoAnswer(Exception):
    """SLURM did not answer, or what it said means nothing; the message is what it said."""


@dataclass
class _Outage:
    """The time since SLURM's last answer to this process.

    why: what it said when it was given up; until: it is left alone; rest: for how long next time;
    warned: the user knows.
    """

    why: str = ""
    until: float = -math.inf
    rest: float = FIRST_REST_S
    warned: bool = False

    def go_on(self, error: NoAnswer) -> None:
        if not self.warned:
            warn(f"SLURM does not answer ({error}); it is asked again")
        self.warned = True

    def give_up(self, error: NoAnswer) -> None:
        self.why, self.until = str(error), time.monotonic() + self.rest
        self.rest = min(2 * self.rest, LONGEST_REST_S)

    def end(self) -> None:
        if self.why:
            say("SLURM answers again")
        self.why, self.until, self.rest, self.warned = "", -math.inf, FIRST_REST_S, False


_outage = _Outage()


def insist(question: Callable[[float], Answer], patience_s: float) -> Answer:
    """Ask until an answer comes, with growing pauses; the user is warned once.

    question: takes the seconds that it has. Where SLURM has been given up lately, a short patience
    is over at once: many looks in a row cost one. In a long outage questions are few, and may take
    longer each.

    Raises:
        NoAnswer: none came.
    """
    start = time.monotonic()
    if start < _outage.until and patience_s <= PATIENCE_S:
        raise NoAnswer(_outage.why)
    longest = _outage.rest if _outage.why else 0.0
    end, pause = start + max(patience_s, longest), FIRST_PAUSE_S
    while True:
        try:
            answer = question(min(max(ONE_QUESTION_S, longest), max(1.0, end - time.monotonic())))
        except NoAnswer as error:
            _outage.go_on(error)
            if time.monotonic() + pause >= end:
                _outage.give_up(error)
                raise
            time.sleep(pause)
            pause *= 2
        else:
            _outage.end()
            return answer


def ask_slurm(
    words: Sequence[str], read: Callable[[Spoken], Answer], patience_s: float | None = None
) -> Answer:
    """Ask one of SLURM's commands, patiently; what `read` makes of its answer.

    read: raises NoAnswer for what is none. patience_s: by default that of a short command.

    Raises:
        NoAnswer: none came in that time.
    """
    if shutil.which(words[0]) is None:
        raise NoAnswer(f"{words[0]} is not on this machine")
    patience_s = PATIENCE_S if patience_s is None else patience_s
    return insist(lambda seconds: ask_once(words, read, seconds), patience_s)


def ask_once(words: Sequence[str], read: Callable[[Spoken], Answer], seconds: float) -> Answer:
    """Ask one of SLURM's commands a single time."""
    try:
        return read(
            subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
            )
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{words[0]}: nothing within {seconds:.0f} s") from error
    except OSError as error:
        raise NoAnswer(f"{words[0]}: {error}") from error


def rows_of(spoken: Spoken) -> list[list[str]]:
    """The lines of an answer, each of three fields with `|` between them; see `lines_of`."""
    rows = [line.split("|", 2) for line in lines_of(spoken)]
    if any(len(row) < 3 for row in rows):
        raise NoAnswer(quote(spoken))
    return rows


def lines_of(spoken: Spoken) -> list[str]:
    """The lines of an answer.

    Raises:
        NoAnswer: the command failed, complained instead of answering, or broke off in a line.
    """
    complains = "error" in spoken.stderr and not spoken.stdout
    if spoken.returncode or complains or (spoken.stdout and not spoken.stdout.endswith("\n")):
        raise NoAnswer(quote(spoken))
    return spoken.stdout.splitlines()


def quote(spoken: Spoken) -> str:
    """What a command said, in one line."""
    said = "; ".join((spoken.stderr.strip() or spoken.stdout.strip()).splitlines())
    return f"{spoken.args[0]}: {said[:LONGEST_WORDS] or f'exit code {spoken.returncode}'}"
