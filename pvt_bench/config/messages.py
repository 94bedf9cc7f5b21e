"""What is wrong with a command line, in words, and what to type instead."""

import errno
import os
import re
import shlex

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from pvt_bench.config.keys import no_key
from pvt_bench.errors import InputError, nearest


def explain(error: BaseException) -> str | None:
    """What is wrong with the input, what was expected and what to type; None for other errors."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _explain_choice(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_key(error)
    if _is_of_full_disk(error):
        return (
            f"There is no room left on the disk ({error}). Free some space, then type the same "
            "command again: nothing that is finished runs again."
        )
    return None


def _is_of_full_disk(error: BaseException) -> bool:
    # Libraries that are not written in Python raise errors of their own, with the system's words.
    of_system = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return of_system or os.strerror(errno.ENOSPC) in str(error)


def how_to_type(word: str) -> str:
    """What to type in place of a word that Hydra's grammar does not take."""
    key, equals, value = word.partition("=")
    if not equals:
        return f"{word} cannot be read: words are key=value. Type for example model=pvt_small."
    if value.startswith(("[", "{")):
        return (
            f"{word} cannot be read: a list is typed as {key}=[1,2,3], with brackets that close. A "
            f"text that begins with a bracket stands in quotes: {quote(word)}"
        )
    return (
        f"{word} cannot be read: a value with =, commas, brackets, quotes or other signs of "
        "Hydra's grammar stands in quotes, and the whole word in those of the shell. Type "
        f"{quote(word)}"
    )


def quote(word: str) -> str:
    """A word as a shell takes it, with its value as one text for Hydra."""
    key, _, value = word.partition("=")
    # A quote needs a backslash, and those before a quote need one each.
    text = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + found[2].replace('"', r"\""), value)
    return shlex.quote(f'{key}="{text}"')


def _explain_choice(error: MissingConfigException) -> str:
    group, _, word = (error.missing_cfg_file or "").rpartition("/")
    if not group or not error.options:
        return str(error)
    options = list(error.options)
    everything = ", ".join(sorted(options))
    message = (
        f"There is no {group}={word}. {nearest(word, options)}\n{group} is one of: {everything}"
    )
    if group == "schedule":
        message += (
            "\nWithout schedule=NAME a run takes schedule=TASK_DATASET; where a task has none for "
            "a dataset, type schedule=NAME."
        )
    return message


def _explain_key(error: HydraException | OmegaConfBaseException) -> str:
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if not isinstance(cause, OmegaConfBaseException):
        return str(error).replace("\t", "  ")
    what = str(cause).splitlines()[0]
    parent = cause.parent_node
    if cause.full_key and isinstance(parent, DictConfig) and cause.key not in parent:
        path = cause.full_key.rpartition(".")[0]
        keys = [f"{path}.{key}".removeprefix(".") for key in map(str, parent)]
        # The YAML of a model lists what is usual, not all that its network takes.
        plus = f" Others with a plus: +{cause.full_key}=..." if path == "model" else ""
        return f"{no_key(cause.full_key, keys)}{plus}"
    if isinstance(cause, InterpolationResolutionError):
        what += ". What stands in ${ } refers to another key, and no path can hold it."
    return f"{cause.full_key}: {what}" if cause.full_key else what
