"""What MLflow shows of a run in words, as Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pvt_bench.escaping import markdown, markdown_block, markdown_code, one_line
from pvt_bench.tracking.addresses import without_password
from pvt_bench.tracking.publishing import (
    COMMAND_TAG,
    DESCRIPTION,
    ERROR_TAG,
    NOTE_TAG,
    STATE_TAG,
    Presentation,
)
from pvt_bench.tracking.reading import LOG
from pvt_bench.tracking.views import curves_view

LAST_LINES, LAST_BYTES = 20, 1 << 14
# MLflow's word for each state in which a record can end.
ENDED = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
HEADS = {"failed": "Failed", "interrupted": "Interrupted", "running": "Running"}


def describe_finished(directory: Path, shown: Presentation) -> str:
    """The row of a finished run, its facts, command and pictures; `{run_id}` stands for its id."""
    path = directory / DESCRIPTION
    text = _unfilled(f"{path.read_text() if path.exists() else ''}{_command(shown)}")
    for picture in sorted((directory / "pictures").glob("*.png")):
        address = f"get-artifact?path=pictures/{quote(picture.name)}&run_uuid={{run_id}}"
        title = markdown(picture.stem.replace("_", " "))
        text += f"\n**{title}**\n\n![{markdown(picture.stem)}]({address})\n"
    return text


def describe_unfinished(
    directory: Path, shown: Presentation, state: str, status: Mapping[str, Any]
) -> str:
    """How a run without a result stands: what ended it, its record and command, its last lines."""
    error = markdown(without_password(str(status.get("error") or "")))
    text = f"**{HEADS[state]}**{f': {error}' if error else ''}\n\n"
    text += f"- **record**: {markdown(str(directory))}\n{_command(shown)}"
    if state == "failed" and (lines := last_lines(directory, status)):
        text += f"\nLast lines of its log:\n\n{markdown_block(without_password(lines))}\n"
    return _unfilled(text)


def experiment_tags(shown: Presentation) -> dict[str, str]:
    """Tags of a run's experiment: its description, and the view that begins with curves."""
    task, _, part = shown.experiment.partition("/")
    what = {"cost": "parameters and GFLOPs", "speed": "latency and images per second"}
    measured = what.get(part, "trainings and tests; their costs are in the experiments beside it")
    lines = [
        f"pvt-bench, {markdown_code(f'task={task}')}: {measured}.",
        "Scores are fractions, `cost/params_m` is in millions, `cost/gflops` counts a "
        "multiply-add once.",
        "**Views** above the list of runs has *curves and scores*, and a view of each sweep that "
        "begins with what was swept. `python -m pvt_bench.report` makes tables of the same runs.",
    ]
    return {NOTE_TAG: "\n\n".join(lines)} | curves_view(shown.headline)


def tags_at_end(state: str, status: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a run that has ended: its state, and why it failed or was stopped."""
    error = without_password(one_line(str(status.get("error") or "")))
    return {STATE_TAG: state} | ({ERROR_TAG: error} if error else {})


def last_lines(directory: Path, status: Mapping[str, Any]) -> str:
    """The end of what a run printed: of its own log, or else of its job's; empty without."""
    places = [directory / LOG, Path((status.get("launch") or {}).get("log") or directory)]
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-LAST_LINES:])


def _command(shown: Presentation) -> str:
    command = shown.tags.get(COMMAND_TAG)
    return f"- **command**: {markdown_code(str(command))}\n" if command else ""


def _unfilled(text: str) -> str:
    """Text of others, in which braces are no place for the run's id."""
    return text.replace("{run_id}", "{run\\_id}")
