"""What lies in results_dir may be anything: it is named, and the rest goes on."""

import json
import os
import shutil
from pathlib import Path

import pytest
from report_runs import COST, TASK, make_run, settings

from pvt_bench import status, sync
from pvt_bench.errors import InputError
from pvt_bench.launching.sweep import Cell, Sweep
from pvt_bench.report.__main__ import main as report
from pvt_bench.tracking.record import Record

DEEP = 100_000
# None stands for a directory in the file's place.
CONTENTS: dict[str, bytes | None] = {
    "empty": b"",
    "null": b"null",
    "list": b"[1, 2]",
    "text": b'"a"',
    "number": b"1e999",
    "cut": b'{"state": "fin',
    "zeros": b"\0" * 4096,
    "utf16": "{}".encode("utf-16"),
    "deep": b"[" * DEEP + b"]" * DEEP,
    "strange": b'{"state": [], "created": {}, "attempt": "x", "params": 3, "step": {}, "cells": 5}',
    "launch": b'{"state": "queued", "created": "2026-01-01T00:00:00+00:00", "attempt": 1,'
    b'"launch": {"pid": "x"}}',
    "folder": None,
}
GOOD = "good"
RECORD_FILES = ("status.json", "config.yaml", "mlflow.json", "metrics.jsonl", "launch.json")


@pytest.fixture
def many(results: Path) -> Path:
    """A sweep of finished runs: a good one, and one for each content."""
    cells = []
    for seed, name in enumerate([GOOD, *CONTENTS]):
        config = settings("model=pvt_small", TASK, f"seed={seed}")
        directory = make_run(
            results, config, COST | {"val/AP": 0.4}, points=[(1, {"train/loss": 1})]
        )
        (directory / "launch.json").write_text("{}")
        place = os.path.relpath(directory, results)
        cells.append(Cell(name, place, "coco_retinanet", "train", ["AP"]))
    Sweep("many-123456", results, ["-m"], cells).write()
    return results


def put(path: Path, content: bytes | None) -> None:
    """Put something in the place of a file."""
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir(parents=True)
    else:
        path.write_bytes(content)


def refused(directory: Path) -> str | None:
    """Why a record cannot be gone on with, if it cannot."""
    try:
        with Record.reopen(directory) as record:
            record.cut(1)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("file", RECORD_FILES)
def test_a_damaged_record_is_named_and_the_others_go_on(
    file: str, many: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep,) = (Sweep.read(path) for path in many.glob("sweeps/*"))
    records = {cell.name: sweep.record(cell) for cell in sweep.cells}
    for name, content in CONTENTS.items():
        put(records[name] / file, content)
    where = [f"results_dir={many}"]
    codes, shown = {}, {}
    for command in (status, sync):
        codes[command.__name__] = command.main(where)
        shown[command.__name__] = "".join(capsys.readouterr())
    code = report([*where, "formats=md", f"output_dir={many / 'tables'}"])
    told = "".join(capsys.readouterr())
    for text in (told, *shown.values()):
        assert "Traceback" not in text, text
    assert code == 0
    if file == "status.json":
        assert codes == {"pvt_bench.status": 1, "pvt_bench.sync": 1}
        for name in CONTENTS.keys() - {"launch", "folder"}:
            assert shown["pvt_bench.sync"].count(f"{records[name]}/status.json") == 1, name
            assert str(records[name]) in told, name
    if file == "mlflow.json":
        assert codes == {"pvt_bench.status": 0, "pvt_bench.sync": 1}
        assert f"1 of {len(records)} runs are in MLflow" in shown["pvt_bench.sync"]
    assert f"{GOOD} " in shown["pvt_bench.status"]
    assert json.loads((records[GOOD] / "status.json").read_text())["mlflow"]["behind"] is False
    for name, directory in records.items():
        if (told := refused(directory)) is not None:
            assert name != GOOD
            assert str(directory) in told


def test_a_damaged_sweep_is_named_and_the_others_go_on(
    many: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (whole,) = many.glob("sweeps/*")
    for name, content in CONTENTS.items():
        shutil.copytree(whole, whole.with_name(name))
        put(whole.with_name(name) / "sweep.json", content)
    for command in (status, sync):
        assert command.main([f"results_dir={many}"]) == 1
        shown = "".join(capsys.readouterr())
        assert "Traceback" not in shown
        for name in CONTENTS:
            assert shown.count(f"sweeps/{name}/sweep.json is not the file of a sweep") == 1, name
    assert status.main([f"results_dir={many}", "sweep=many"]) == 0
    assert status.main([f"results_dir={many}", "sweep=null"]) == 2
    assert "is not the file of a sweep" in capsys.readouterr().err
