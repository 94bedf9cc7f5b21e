"""What is wrong with a command line, in words, and what to type instead."""

import errno
import os
import re
import shlex

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from pvt_bench.config.keys import all_keys, no_key
from pvt_bench.errors import InputError, near, nearest


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
            f"There is no room left on the disk ({error}). Free some space, then run the same "
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
        return (
            f"Unknown word {word}: settings are KEY=VALUE, for example model=pvt_small. --help "
            "explains the command."
        )
    if value.startswith(("[", "{")):
        return (
            f"{word} cannot be read: a list is {key}=[1,2,3], with a closing bracket. A text that "
            f"begins with a bracket needs quotes: {quote(word)}"
        )
    return (
        f"{word} cannot be read: a value with =, commas, brackets, quotes or other special "
        "characters needs quotes, within quotes of the shell. Use "
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
    message = f"There is no {group}={word}. {nearest(word, options)}"
    if near(word, options):
        message += f" python -m pvt_bench --help {group} lists all choices."
    if group == "model":
        message += "\nAny other network of timm: model=timm model.name=NAME"
    if group == "schedule":
        message += (
            "\nBy default a run uses schedule=TASK_DATASET; where a task has none for a dataset, "
            "add schedule=NAME."
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
        keys = [f"{path}.{key}".removeprefix(".") for key in map(str, parent) if key != "hydra"]
        # The YAML of a model lists what is usual, not all that its network takes.
        plus = (
            f" Options that its YAML does not list need a plus: +{cause.full_key}=..."
            if path == "model"
            else ""
        )
        return f"{no_key(cause.full_key, keys, all_keys(parent._get_root()))}{plus}"
    if isinstance(cause, InterpolationResolutionError):
        what += ". ${ } refers to another key, and cannot be part of a path."
    return f"{cause.full_key}: {what}" if cause.full_key else what
