"""The page of `python -m pvt_bench --help`, and the list of a group's choices."""

import textwrap
from collections.abc import Sequence

from pvt_bench.config.choices import EXPERIMENTS, default_choices, names_of
from pvt_bench.config.recipes import recipe_table
from pvt_bench.errors import InputError, nearest

WIDTH = 80
PAGE = """\
pvt-bench measures vision backbones in whole tasks: parameters, GFLOPs, scores
and latency. Each run keeps a record under results/ and is logged to MLflow.

Usage:
  python -m pvt_bench model=NAME task=NAME [KEY=VALUE ...]
  python -m pvt_bench -m KEY=VALUE,VALUE ...     a sweep of all combinations

Groups (--help model lists all choices of model=):
{groups}

Examples:
  python -m pvt_bench model=pvt_small task=coco_retinanet
  ... mode=cost                          parameters and GFLOPs, without data
  ... mode=speed                         latency, images per second, memory
  ... mode=test weights=PATH             score a trained network
  ... schedule.steps=100 seed=1          a shorter training
  ... model.sr_ratios=[4,2,1,1]          another network
  ... dataset=coco dataset.root=/data/coco model.weights=imagenet
  ... trainer=ddp trainer.devices=4      several GPUs
  python -m pvt_bench -m model=pvt_tiny,pvt_small task=coco_retinanet seed=0,1
  python -m pvt_bench sweep=sr_ratios launcher=slurm       a job per run

Options:
  python -m pvt_bench.options trainer    explains the keys of trainer, and so on
  --cfg job      print the configuration of the command instead of running it
  --version      print the version
  -sc install=bash    completion with the tab key; --hydra-help: Hydra's options

Other commands, each with --help:
  python -m pvt_bench.status             state of every run of a sweep
  python -m pvt_bench.report             tables, plots and a page of all runs
  python -m pvt_bench.sync               send MLflow what it has missed
  python -m pvt_bench.preflight          check a dataset before a run
  python -m pvt_bench.export             write a backbone's weights to a file
  python -m pvt_bench.options            explain the options
  mlflow ui --backend-store-uri sqlite:///results/mlflow.db    browse the runs

Exit codes: 0 done, 1 failed, 2 the command or its input cannot be used,
130 interrupted: the same command resumes the run.
"""


def help_page(words: Sequence[str]) -> str:
    """The help for a command line: the page, or the choices of the groups that it names.

    Raises:
        InputError: a word that is neither an option, a setting nor a group.
    """
    groups = _groups(words)
    named = [word for word in words if not word.startswith("-") and "=" not in word]
    for word in named:
        if word not in groups:
            raise InputError(f"There is no group {word}. {nearest(word, groups)}")
    if named:
        return "\n\n".join(_all_of(group, groups[group]) for group in named)
    return PAGE.format(groups="\n".join(_line(*each) for each in groups.items()))


def _groups(words: Sequence[str]) -> dict[str, list[str]]:
    """The choices of each group by its name."""
    groups = {group: names_of(group, words) for group in (*default_choices(), *EXPERIMENTS)}
    return {**groups, "recipe": sorted(recipe_table()["settings"])}


def _line(group: str, names: Sequence[str]) -> str:
    """A line with the number of choices and as many of them as fit, the default first."""
    start, default = f"  {group:<9}{len(names):>3}  ", default_choices().get(group)
    shown = sorted(_spread(names), key=lambda name: name != default)
    if default in names and default not in shown:
        shown = [str(default), *shown]
    while len(start) + len(_listed(shown, names)) > WIDTH:
        shown.pop()
    return start + _listed(shown, names)


def _spread(names: Sequence[str], most: int = 6) -> list[str]:
    """At most so many names, from the whole alphabet."""
    step = -(-len(names) // most)
    return list(names[::step])


def _listed(shown: Sequence[str], names: Sequence[str]) -> str:
    return ", ".join(shown) + (", ..." if len(shown) < len(names) else "")


def _all_of(group: str, names: Sequence[str]) -> str:
    lines = textwrap.fill(
        " ".join(names), WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return f"{group}= is one of {len(names)}:\n{lines}"
