"""How a command ends: what it prints of an error, and its exit code."""

import traceback

from pvt_bench.config.messages import explain
from pvt_bench.errors import Failed, Interrupted
from pvt_bench.screen import complain

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


def report(error: Exception, full: bool) -> int:
    """Print an error as its reader can use it, and give the exit code.

    full: with its traceback, whatever it is.
    """
    message = explain(error)
    interrupted = isinstance(error, Interrupted)
    # A loss that is not a number says all that there is to know, too.
    told = interrupted or isinstance(error, Failed | FloatingPointError)
    if full or (message is None and not told):
        complain("".join(traceback.format_exception(error)).rstrip("\n"))
    elif interrupted:
        complain(f"{error}; the same command goes on from there")
    else:
        complain(f"error: {message or error}")
    if interrupted:
        return INTERRUPTED
    return FAILED if message is None else REFUSED
