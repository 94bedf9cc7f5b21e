"""The column of runs in Markdown: a path where the record is local, a link where it is served."""

from pathlib import Path

from pvt_bench.report.formats.markdown import to_markdown
from pvt_bench.report.tables.rows import Origin, Row, Table


def run_column(place: str, directory: Path) -> str:
    """What stands for a run of this link in a table below `directory`."""
    origin = Origin("cost", "0", "0f5148573c", "net", "finished", "", "", "", place, 0)
    row = Row(("net",), {}, origins=(origin,))
    table = Table("name", "title", "command", {"model": "model"}, {}, [row])
    line = to_markdown([table], directory).rstrip("\n").split("\n")[-1]
    return line.split(" | ")[1]


def test_a_record_is_named_by_its_path(tmp_path: Path) -> None:
    record = tmp_path / "runs" / "a task" / "net-0f5148573c"
    assert run_column(str(record), tmp_path / "tables") == "`../runs/a task/net-0f5148573c`"


def test_a_run_on_a_server_is_a_link(tmp_path: Path) -> None:
    address = "http://host:5000/#/experiments/1/runs/abc"
    assert run_column(address, tmp_path) == f"[0f5148573c]({address})"


def test_a_run_without_a_place_is_named_by_its_identity(tmp_path: Path) -> None:
    assert run_column("s3://bucket/run", tmp_path) == "0f5148573c"
