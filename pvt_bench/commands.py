"""The shell around each command: its words, its help, how it tells of an error, its exit code."""

import os
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pvt_bench.config.keys import no_key
from pvt_bench.config.messages import explain
from pvt_bench.errors import Failed, InputError, Interrupted, nearest
from pvt_bench.screen import complain

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
HELP = ("-h", "--help", "help")


def run_command(
    words: Sequence[str],
    work: Callable[[Sequence[str]], int],
    help_text: str | Callable[[Sequence[str]], str],
    interrupted: str = "",
) -> int:
    """Run a command on the words of its command line; the exit code.

    help_text: for --help, perhaps by the other words. interrupted: what Ctrl-C leaves, in a
    sentence.
    """
    # Hydra's answers set the variable for themselves.
    full = _wants_traceback()
    try:
        if asks_help(words):
            others = [word for word in words if word not in HELP]
            return print_text(help_text if isinstance(help_text, str) else help_text(others))
        if "--version" in words:
            return print_text(name_version())
        return work(words)
    except KeyboardInterrupt:
        if interrupted:
            complain(interrupted)
        return INTERRUPTED
    except Exception as error:
        return report(error, full)


def asks_help(words: Sequence[str]) -> bool:
    """Whether the words ask for help: -h, --help, or `help` in the first place."""
    return words[:1] == ["help"] or bool({"-h", "--help"} & {*words})


def name_version() -> str:
    """The name of the project with the version that is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"pvt-bench {version('pvt-bench')}"
    except PackageNotFoundError:
        return "pvt-bench, a checkout that is not installed"


def print_text(text: str) -> int:
    """Print a text, for a pager that may close before its end; the exit code."""
    try:
        print(text.strip("\n"), flush=True)
    except BrokenPipeError:
        # Python would complain of it once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def report(error: Exception, full: bool | None = None) -> int:
    """Print an error as its reader can use it; the exit code.

    full: with its traceback, whatever it is; by default where HYDRA_FULL_ERROR=1.
    """
    message = explain(error)
    interrupted = isinstance(error, Interrupted)
    # A loss that is not a number says all that there is to know, too.
    told = interrupted or isinstance(error, Failed | FloatingPointError)
    if (_wants_traceback() if full is None else full) or (message is None and not told):
        complain("".join(traceback.format_exception(error)).rstrip("\n"))
    elif interrupted:
        complain(f"{error}; the same command goes on from there")
    else:
        complain(f"error: {message or error}")
    if interrupted:
        return INTERRUPTED
    return FAILED if message is None else REFUSED


def read_words(words: Sequence[str], keys: Collection[str]) -> list[tuple[str, str]]:
    """Split words `key=value` of a command with these keys.

    Raises:
        InputError: a word that is not `key=value`, or an unknown key.
    """
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key.startswith("-"):
            raise InputError(
                f"Unknown {'option' if word.startswith('-') else 'word'} {word}. Settings are "
                f"KEY=VALUE. {nearest(key.strip('-'), keys)} --help explains the command."
            )
        if key not in keys:
            raise InputError(no_key(key, keys))
        pairs.append((key, value))
    return pairs


def find_results(typed: Mapping[str, str]) -> Path:
    """The results_dir among typed words, that of the environment, or `results`."""
    place = typed.get("results_dir", os.environ.get("PVT_BENCH_RESULTS", "results"))
    return Path(place).expanduser().absolute()


def _wants_traceback() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"
