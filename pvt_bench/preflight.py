"""Checks a dataset as a whole before a run or a sweep uses it.

    python -m pvt_bench.preflight task=coco_retinanet dataset=coco dataset.root=PATH

Reads every image that the task would read, with all cores, and lists what is
wrong by kind. The full list goes into `preflight.json` under results_dir, with a
digest of every byte that was read. No model is needed; the other words are those
of a run.

Exit codes: 0 no errors, though there may be notes on what the readers handle;
1 errors that would stop a training or make its score wrong; 2 the command cannot
be used; 130 interrupted.
"""

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvt_bench.commands import DONE, FAILED, run_command
from pvt_bench.config.command_line import check_named, compose_data, why_dataset
from pvt_bench.config.keys import check_targets
from pvt_bench.config.places import check_root
from pvt_bench.config.schema import Config, Mode, plain
from pvt_bench.config.targets import build
from pvt_bench.errors import InputError
from pvt_bench.files import replace
from pvt_bench.processes import spread
from pvt_bench.screen import progress_bar, say

if TYPE_CHECKING:
    from pvt_bench.datasets.faults.files import Survey
    from pvt_bench.datasets.faults.kinds import Fault, Kind

EXAMPLE = "task=coco_retinanet dataset=coco dataset.root=PATH"
SHOWN = 10  # faults of a kind in the terminal
CHUNK = 16  # images that a process takes at a time


def main(words: Sequence[str]) -> int:
    """Check the dataset that the command line names; the exit code."""
    return run_command(words, check_typed, __doc__, "interrupted; no report was written")


def check_typed(words: Sequence[str]) -> int:
    """Check the dataset that is typed; the exit code."""
    config = compose_words(words)
    say(why_dataset(config.dataset.name, config.dataset.root, words))
    return check_dataset(config)


def compose_words(words: Sequence[str]) -> Config:
    """The configuration of a run with these words, but for its model."""
    options = [word for word in words if word.startswith("-")]
    if options:
        raise InputError(
            f"Unknown option {options[0]}. Use for example {EXAMPLE}; --help explains the command."
        )
    check_named(words, ["task"], "pvt_bench.preflight", EXAMPLE)
    return compose_data(words)


def check_dataset(config: Config) -> int:
    """Survey the splits that the task reads, read their images, and report; the exit code."""
    check_root(config)
    check_targets(config)
    report_file = Path(config.results_dir) / "preflight" / config.dataset.name / "preflight.json"
    _prepare(report_file)
    began = time.monotonic()
    reader = build("dataset", config.dataset).reader(config.task.view)
    # Torch comes with the readers' modules: imported once the configuration is known to be right.
    from pvt_bench.datasets.faults.kinds import forgive

    say(f"looking at {reader.root.absolute()}")
    splits = ("val",) if config.mode == Mode.test else ("train", "val")
    options = plain(config.task).get("view_options") or {}
    surveys = reader.survey(config.task.view, splits, **options)
    faults = _compare_classes(config, surveys)
    content = {}
    for split, found in surveys.items():
        seen, content[split] = read_images(found, f"reading {split}")
        faults += forgive(seen, split, reader.on_damaged)
    kinds = by_kind(faults)
    show(kinds)
    images = sum(len(found.jobs) for found in surveys.values())
    facts = {
        "task": config.task.name,
        "dataset": config.dataset.name,
        "root": str(reader.root.absolute()),
        "splits": list(splits),
        "images": images,
        "content": content,
        "seconds": round(time.monotonic() - began, 1),
    }
    errors = write(report_file, facts, kinds)
    say(f"{images:,} images read in {facts['seconds']} s; all faults: {report_file}")
    return FAILED if errors else DONE


def read_images(found: "Survey", name: str) -> tuple[list["Fault"], str]:
    """Read a split's images whole, with all cores.

    Returns what is wrong with the split, in the images' order, and the SHA-256 of its content: of
    the names of the files that are read, and of every byte of them.
    """
    from pvt_bench.datasets.faults.images import look
    from pvt_bench.datasets.fingerprints import full_digest

    faults, count = list(found.faults), 0
    content = hashlib.sha256(full_digest(found.labels).encode())
    with progress_bar(name, len(found.jobs)) as bar:
        looks = spread(look, found.jobs, CHUNK)
        for job, (seen, digest) in zip(found.jobs, looks, strict=True):
            content.update(f"{job.image} {digest}\n".encode("utf-8", "surrogateescape"))
            faults += seen
            count += len(seen)
            bar.note = f"faults: {count:,}" if count else ""
            bar.advance()
    return faults, content.hexdigest()


def by_kind(faults: Sequence["Fault"]) -> dict["Kind", list["Fault"]]:
    """The faults of each kind, errors first."""
    kinds: dict[Any, list[Fault]] = {}
    for fault in sorted(faults, key=lambda fault: (fault.kind.severity, fault.kind.name)):
        kinds.setdefault(fault.kind, []).append(fault)
    return kinds


def show(kinds: dict["Kind", list["Fault"]]) -> None:
    """Print each kind with its first faults."""
    for kind, faults in kinds.items():
        say(f"\n{kind.severity}: {kind.name}: {len(faults):,}")
        say(f"  {kind.explanation} What to do: {kind.remedy}")
        for fault in faults[:SHOWN]:
            say(f"    {fault}")
        if len(faults) > SHOWN:
            say(f"    and {len(faults) - SHOWN:,} more")
    counts = {"error": 0, "note": 0}
    for kind, faults in kinds.items():
        counts[kind.severity] += len(faults)
    say(f"\n{counts['error']:,} errors, {counts['note']:,} notes")


def write(path: Path, facts: dict[str, Any], kinds: dict["Kind", list["Fault"]]) -> int:
    """Write the report as a whole; the number of errors."""
    listed = [
        {
            "name": kind.name,
            "severity": kind.severity,
            "explanation": kind.explanation,
            "remedy": kind.remedy,
            "count": len(faults),
            "faults": [{"where": fault.where, "detail": fault.detail} for fault in faults],
        }
        for kind, faults in kinds.items()
    ]
    errors = sum(len(faults) for kind, faults in kinds.items() if kind.severity == "error")
    content = {**facts, "errors": errors, "kinds": listed}
    replace(path, json.dumps(content, indent=1).encode())
    return errors


def _compare_classes(config: Config, surveys: dict[str, "Survey"]) -> list["Fault"]:
    """A note where a dataset has not the classes of the task's published protocol."""
    from pvt_bench.datasets.faults.kinds import OTHER_CLASSES, Fault

    expected = config.task.protocol.num_classes
    if config.dataset.name == "digits":  # has its own by design
        return []
    counts = {split: len(found.classes) for split, found in surveys.items() if found.classes}
    return [
        Fault(OTHER_CLASSES, split, f"{count} classes, published with {expected}")
        for split, count in counts.items()
        if count != expected
    ]


def _prepare(report_file: Path) -> None:
    try:
        report_file.parent.mkdir(parents=True, exist_ok=True)
        report_file.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{report_file} cannot be written ({error.strerror}). Use results_dir=PATH for a "
            "place that can be written."
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
