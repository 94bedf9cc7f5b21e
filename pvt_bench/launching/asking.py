"""Questions to SLURM: each has a time limit, and is asked again where no answer comes."""

import math
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pvt_bench.screen import say, warn

# A busy controller needs seconds; a question that hangs costs a short command all its patience.
ONE_QUESTION_S = 8.0
PATIENCE_S = 12.0
# Before something is submitted, or requeued: what is given up here is lost.
LONG_PATIENCE_S = 60.0
# Between two questions of one patience, and between two patiences.
FIRST_PAUSE_S, FIRST_REST_S, LONGEST_REST_S = 0.5, 5.0, 60.0
LONGEST_WORDS = 300

Answer = TypeVar("Answer")
Spoken = subprocess.CompletedProcess[str]


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
