"""Records that an older version made: whether they are those of a command of today.

Two things have changed what makes a run itself: fingerprints of data cover the content of images,
and a task whose network changed has a `revision`.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pvt_bench.config.schema import OldRecords
from pvt_bench.errors import InputError
from pvt_bench.screen import say
from pvt_bench.tracking.identity import identity
from pvt_bench.tracking.record import find_directory, read_status

Digests = dict[str, str]


def find_taken_over(
    config: DictConfig, keys: dict[str, Any], content: Digests, label: str, data: Mapping[str, Any]
) -> Digests | None:
    """The digests under which an older record is that of this run; None where it has its own.

    A record is taken over where its fingerprints covered names and sizes of the images, or where
    `old_records=keep` says that it is of the same ones. Its status then notes the digests of today.

    keys, content: what makes the run itself today; data: its views by split.

    Raises:
        InputError: there is an older record, and only the user can tell whether it is of this data.
    """
    former = content | {
        f"dataset.{split}": view.former_fingerprint
        for split, view in data.items()
        if view.former_fingerprint is not None
    }
    if former == content or config.rerun or _find(config, label, keys, content):
        return None
    _tell_of_other_revision(config, keys, label, former)
    found = _find(config, label, keys, former)
    if found is None:
        return None
    status = read_status(found)
    if "content" in status:
        return former if status["content"] == content else None
    if all(view.former_covers_images for view in data.values()):
        _say_once(f"taken over, since names and sizes of its images are those of today: {found}")
        return former
    if config.old_records == OldRecords.ask:
        raise InputError(
            f"There is an older record of this command ({status['state']}): {found}. When it was "
            "made, the annotation files alone were compared, so it may be of other images. Type "
            "old_records=keep if its images were those of today: it is taken over as it is. Type "
            "old_records=ignore to leave it as it is and to start a new run."
        )
    if config.old_records == OldRecords.ignore:
        _say_once(f"an older record of this command is left as it is (old_records=ignore): {found}")
        return None
    _say_once(f"taken over (old_records=keep): {found}")
    return former


def _tell_of_other_revision(
    config: DictConfig, keys: dict[str, Any], label: str, former: Digests
) -> None:
    """Say where the record of an older revision of the task lies, which is another run."""
    if "revision" not in keys["task"]:
        return
    task = {key: value for key, value in keys["task"].items() if key != "revision"}
    found = _find(config, label, keys | {"task": task}, former)
    if found is not None:
        _say_once(
            f"an older record of this command was made before task={config.task.name} became what "
            f"it is now (docs/exactness.md); it is left as it is, and this is a new run: {found}"
        )


@cache
def _say_once(message: str) -> None:
    """Say what a sweep finds out twice: when it checks a cell, and when it queues it."""
    say(message)


def _find(config: DictConfig, label: str, keys: dict[str, Any], content: Digests) -> Path | None:
    found = find_directory(config.results_dir, label, identity(keys, content))
    return found if (found / "status.json").exists() else None
