"""Errors whose message is all that a user needs: of what was given, and of the work itself."""

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

# From this share of letters in common on, a word is a slip of another; half of them are in common
# by chance. Those that are less like it than the best by so much are left out.
LIKE, MARGIN = 0.75, 0.2


class InputError(Exception):
    """Something given by the user cannot be used.

    The message says what is wrong, what was expected and what to type. The command ends with
    exit code 2 and prints the message without a traceback.
    """

    def __init__(self, message: str) -> None:
        # A data loader's worker hands an exception over as text with its traceback around it.
        own = type(self).__name__
        if message.startswith(f"Caught {own} in "):
            message = message.rpartition(f"{own}: ")[2].strip()
        super().__init__(message)


class Failed(Exception):
    """The work ended early, and the message says why and what to do.

    The command ends with exit code 1 and prints the message without a traceback.
    """


class Interrupted(Exception):
    """The run was asked to stop and has stopped; the same command goes on from there.

    signal: the number of the signal that asked.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def nearest(word: str, options: Iterable[str]) -> str:
    """A sentence that names the options nearest to `word`, or all of them if none is near.

    Of dotted keys with the same beginning only the ends are compared.
    """
    options = sorted(options)
    close = near(word, options)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Choose one of: {', '.join(options)}."


def near(word: str, options: Sequence[str], most: int = 3) -> list[str]:
    """The options that `word` may be a slip or a part of, the likeliest first; often none."""
    parent, dot, _ = word.rpartition(".")
    start = parent + dot if all(option.startswith(parent + dot) for option in options) else ""
    scores = {
        option: _likeness(word.removeprefix(start).lower(), option.removeprefix(start).lower())
        for option in options
    }
    likely = sorted((each for each in options if scores[each]), key=lambda each: -scores[each])
    return [each for each in likely if scores[each] > scores[likely[0]] - MARGIN][:most]


def _likeness(word: str, option: str) -> float:
    """How likely a word stands for an option, from 0 to 1; 0 where nothing but chance says so."""
    ratio = SequenceMatcher(None, word, option).ratio()
    others = sum(a != b for a, b in zip(word, option, strict=False))
    swapped = others == 2 and sorted(word) == sorted(option)
    if len(word) == len(option) > 2 and (others == 1 or swapped):
        return max(ratio, LIKE)
    words, parts = set(re.split(r"[_.-]", word)), set(re.split(r"[_.-]", option))
    begins = len(word) > 2 and option.startswith(word)
    return ratio if ratio >= LIKE or begins or words <= parts or parts <= words else 0.0
