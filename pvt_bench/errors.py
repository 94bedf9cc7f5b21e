"""Errors whose message is all that a user needs: of what was given, and of the work itself."""

from collections.abc import Iterable
from difflib import get_close_matches


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
    parent, dot, _ = word.rpartition(".")
    start = parent + dot if all(option.startswith(parent + dot) for option in options) else ""
    ends = {option.removeprefix(start): option for option in options}
    close = get_close_matches(word.removeprefix(start), ends, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(ends[end] for end in close)}?"
    return f"Choose one of: {', '.join(options)}."
