"""What a sweep is: its cells, their identity, how they stand, and its table."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweeping import COST, TRAIN, read_sweep, runs_in, stand, start

from pvt_bench import status
from pvt_bench.builders import open_data
from pvt_bench.config.command_line import compose_cells
from pvt_bench.errors import InputError
from pvt_bench.launching.cell import FROZEN, thaw
from pvt_bench.launching.jobs import Job
from pvt_bench.launching.sweep import (
    DONE,
    FAILED,
    LOST,
    QUEUED,
    RUNNING,
    STOPPED,
    UNKNOWN,
    Cell,
    State,
    Sweep,
    _word,
    look,
    sweep_name,
)
from pvt_bench.launching.watching import progress, tabulate, to_markdown
from pvt_bench.records import find_record
from pvt_bench.tracking.addresses import default_uri
from pvt_bench.tracking.environment import launch_here
from pvt_bench.tracking.mlflow import Mirror
from pvt_bench.tracking.publishing import Presentation
from pvt_bench.tracking.record import Record


def record_of(*words: str) -> Path:
    (cell,) = compose_cells(words)
    return find_record(cell.config, open_data(cell.config))


def test_how_and_where_it_runs_does_not_make_another_run(digits: Path, tmp_path: Path) -> None:
    words = (*TRAIN, f"dataset.root={digits}", f"results_dir={tmp_path}", "schedule.steps=8")
    record = record_of(*words)
    elsewhere = (
        "launcher=slurm", "launcher.partition=low", "trainer.workers=3", "trainer.devices=2",
        "tracking.uri=http://host:5000", "trainer.checkpoint_every=7", "rerun=true",
    )  # fmt: skip
    assert record_of(*words, *elsewhere) == record
    assert record_of(*reversed(words)) == record
    for word in ("seed=1", "schedule.lr=0.5", "model.sr_ratios=[1,1,1,1]"):
        assert record_of(*words, word) != record


def test_a_cell_of_two_sweeps_is_one_run(results: Path) -> None:
    place = f"results_dir={results}"
    assert stand(start("model=lenet5,resnet18", *COST, place)) == {"lenet5": DONE, "resnet18": DONE}
    ended = start("model=resnet34,lenet5", *COST, place)
    assert stand(ended) == {"resnet34": DONE, "lenet5": DONE}
    assert [state.status["attempt"] for state in ended] == [1, 1]
    runs = {run.info.run_name: run for run in runs_in(results) if "kind" not in run.data.tags}
    assert len(runs_in(results)) == len(runs) + 2
    assert set(runs) == {"lenet5", "resnet18", "resnet34"}
    parents = {name: run.data.tags["mlflow.parentRunId"] for name, run in runs.items()}
    # The cell that was there before stays with the sweep that ran it.
    assert parents["lenet5"] == parents["resnet18"] != parents["resnet34"]


def test_parent_and_children_in_mlflow(results: Path) -> None:
    ratios = "model.sr_ratios=[8,4,2,1],[1,1,1,1]"
    states = start("model=pvt_tiny", ratios, *COST, f"results_dir={results}")
    (parent,) = (run for run in runs_in(results) if run.data.tags.get("kind") == "sweep")
    children = [run for run in runs_in(results) if run.info.run_id != parent.info.run_id]
    assert parent.info.run_name == read_sweep(results, "sr_ratios").name
    assert parent.info.status == "FINISHED"
    assert "model.sr_ratios=[8,4,2,1],[1,1,1,1]" in parent.data.tags["command"]
    assert {run.info.run_name for run in children} == {
        "pvt_tiny sr_ratios=[8,4,2,1]",
        "pvt_tiny sr_ratios=[1,1,1,1]",
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    for state in states:
        name = state.cell.name.replace("[", r"\[").replace("]", r"\]")
        assert f"| {name} | done |" in parent.data.tags["mlflow.note.content"]


def test_all_cells_that_cannot_be_built_are_named_before_anything_is_queued(results: Path) -> None:
    heads = "model.heads=[1,2,5,8],[1,2,3,8],[1,2,7,8]"
    with pytest.raises(InputError, match="nothing was queued") as refused:
        start("model=pvt_tiny", heads, *COST, f"results_dir={results}")
    message = str(refused.value)
    assert message.startswith("2 of 3 cells")
    assert "pvt_tiny heads=[1,2,3,8]" in message
    assert "pvt_tiny heads=[1,2,7,8]" in message
    assert not (results / "runs").exists()
    assert not list(results.glob("sweeps/*"))
    assert not runs_in(results)


def test_ctrl_c_stops_the_cells_of_this_process(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one at work and the one that waits are stopped, and the command comes to its end."""

    def interrupt(run_cell: Callable[[], Any]) -> None:
        monkeypatch.setattr("pvt_bench.run.build_skeleton", press)
        run_cell()

    def press(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sweeping.run_here", interrupt)
    with pytest.raises(KeyboardInterrupt):
        start("model=lenet5,resnet34", *COST, f"results_dir={results}")
    states = look(read_sweep(results, "model"))
    assert stand(states) == {"lenet5": STOPPED, "resnet34": STOPPED}
    monkeypatch.undo()
    again = start("model=lenet5,resnet34", *COST, f"results_dir={results}")
    assert stand(again) == {"lenet5": DONE, "resnet34": DONE}


def test_cells_in_this_process_cannot_be_left_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="launcher=local"):
        start("model=lenet5,resnet34", *COST, f"results_dir={tmp_path}", "launcher.detach=true")


def test_the_name_of_a_sweep_is_that_of_its_cells() -> None:
    places = ["a/b/pvt-0123456789", "a/b/pvt-abcdef0123"]
    name = sweep_name("seeds", places)
    assert name.startswith("seeds-")
    assert sweep_name("seeds", places[::-1]) == name
    assert sweep_name("seeds", ["other/label-0123456789", places[1]]) == name
    assert sweep_name("seeds", places[:1]) != name


@pytest.mark.parametrize(
    ("state", "job", "beats", "word"),
    [
        # A record alone: a run of this machine that is at work, ended, or gone.
        ("finished", "", False, DONE),
        ("failed", "", False, FAILED),
        ("interrupted", "", False, STOPPED),
        ("running", "", True, RUNNING),
        ("running", "", False, LOST),
        ("queued", "", False, LOST),
        ("missing", "", False, LOST),
        # With a job that is there.
        ("queued", "PENDING", False, QUEUED),
        ("queued", "RUNNING", False, QUEUED),
        ("running", "RUNNING", True, RUNNING),
        ("running", "COMPLETING", True, RUNNING),
        ("running", "RUNNING", False, LOST),
        ("running", "UNKNOWN", False, UNKNOWN),
        ("running", "UNKNOWN", True, RUNNING),
        ("queued", "UNKNOWN", False, UNKNOWN),
        ("interrupted", "UNKNOWN", False, UNKNOWN),
        ("failed", "UNKNOWN", False, FAILED),
        ("running", "PENDING", True, QUEUED),
        ("interrupted", "PENDING", False, QUEUED),
        ("interrupted", "RUNNING", False, QUEUED),
        ("failed", "RUNNING", False, FAILED),
        ("finished", "RUNNING", True, DONE),
        # With a process of this machine that is gone, whatever its last heartbeat was.
        ("running", "GONE", True, LOST),
        ("queued", "GONE", False, LOST),
        ("interrupted", "GONE", False, STOPPED),
        ("failed", "GONE", False, FAILED),
        # With a job that has ended: what the record says last holds, if it could say it.
        ("running", "FAILED", True, LOST),
        ("running", "CANCELLED", False, LOST),
        ("queued", "CANCELLED", False, LOST),
        ("queued", "NODE_FAIL", False, LOST),
        ("interrupted", "CANCELLED", False, STOPPED),
        ("failed", "COMPLETED", False, FAILED),
        ("finished", "FAILED", False, DONE),
    ],
)
def test_how_a_cell_stands(state: str, job: str, beats: bool, word: str) -> None:
    error = None if state in ("running", "finished", "queued") else "what went wrong"
    found, why = _word({"state": state, "error": error}, Job(job, "Priority"), beats)
    assert found == word
    assert bool(why) == (word not in (DONE, RUNNING))
    if job == "PENDING":
        assert why == "Priority"


def test_slurms_last_words_on_a_lost_cell(tmp_path: Path) -> None:
    log = tmp_path / "log.out"
    log.write_text("step 3\nslurmstepd: error: Exceeded job memory limit\nsrun: error: task 0\n")
    status = {"state": "running", "error": None, "launch": {"log": str(log)}}
    assert _word(status, Job("FAILED"), False) == (
        LOST,
        "the job ended as FAILED: slurmstepd: error: Exceeded job memory limit",
    )


def sweep_of(results_dir: Path, *names: str, mode: str = "train") -> Sweep:
    cells = [
        Cell(name, f"runs/t/d/{name}-{n:010}", "t", mode, ["top1"]) for n, name in enumerate(names)
    ]
    uri = default_uri(results_dir)
    return Sweep("names-012345", results_dir, ["-m", "model=a,b"], cells, {}, uri)


def test_the_table(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "good", "bad|cell")
    row = {"val/top1": 0.5, "val/top5": 0.9, "cost/gflops": 3.25, "seconds": 8.0}
    states = [
        State(sweep.cells[0], DONE, "", {"result": row}, Job()),
        State(sweep.cells[1], FAILED, "it broke\nhere", {"result": None}, Job()),
    ]
    headings, rows = tabulate(states)
    assert headings == ["cell", "state", "GFLOPs", "top1", "seconds", "why"]
    assert rows[0] == ["good", DONE, 3.25, 50.0, 8.0, ""]
    assert rows[1] == ["bad|cell", FAILED, None, None, None, "it broke"]
    text = to_markdown(sweep, states)
    assert "`python -m pvt_bench -m model=a,b`" in text
    assert "| bad\\|cell | failed | – | – | – | it broke |" in text
    assert "1 done, 1 failed:" in text
    assert "why" not in tabulate(states[:1])[0]


def open_cell(sweep: Sweep, config: dict[str, Any]) -> Record:
    """Begin a record for the sweep's first cell, whose place becomes that of the record."""
    record = Record.open(config, sweep.results_dir, "t/d/name", "0123456789")
    record.begin()
    place = os.path.relpath(record.directory, sweep.results_dir)
    replace(sweep, cells=[replace(sweep.cells[0], place=place)]).write()
    return record


def test_status_of_a_run_at_work_and_of_one_that_died(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its heartbeat stops with its process; then the record and MLflow are told."""
    uri = f"sqlite:///{results}/mlflow.db"
    sweep = replace(sweep_of(results, "cell"), uri=uri)
    words = [f"results_dir={results}"]
    with open_cell(sweep, {"seed": 0}) as record:
        Mirror(record, uri, Presentation("t", "cell", {}, {})).start()
        record.update(steps=100)
        for step in (10, 20):
            record.log(step, {"train/loss": 1.0})
        assert status.main([*words, "sweep=names"]) == 0
        shown = capsys.readouterr().out
        assert "running" in shown
        assert "step 20 of 100" in shown
        (state,) = look(Sweep.read(sweep.directory))
        assert "ETA" in progress(Sweep.read(sweep.directory), state)
        gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                              capture_output=True, text=True, check=True)  # fmt: skip
        record.update(launch=launch_here(int(gone.stdout)))
    assert status.main(words) == 1
    assert "its process is gone" in capsys.readouterr().out
    ended = Record.reopen(record.directory)
    assert ended.status["state"] == "failed"
    ended.close()
    (run,) = runs_in(results)
    assert run.info.status == "FAILED"
    assert "its process is gone" in (sweep.directory / "table.md").read_text()


def test_status_of_a_removed_record_and_of_what_is_not_there(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"results_dir={results}"]
    assert status.main(words) == 0
    assert "There is no run" in capsys.readouterr().out
    sweep_of(results, "cell").write()
    assert status.main(words) == 1
    assert "lost" in capsys.readouterr().out
    replace(sweep_of(results, "one", "two"), name="other-012345").write()
    assert status.main(words) == 1
    listed = capsys.readouterr().out
    assert "names-012345" in listed
    assert "2 lost" in listed
    assert status.main([*words, "sweep=nmes"]) == 2
    assert "Did you mean names?" in capsys.readouterr().err
    assert status.main(["sweep"]) == 2
    (results / "sweeps" / "other-012345" / "sweep.json").write_text("{}")
    assert status.main([*words, "sweep=other"]) == 2
    assert "Run the command of the sweep again" in capsys.readouterr().err


def test_a_cell_runs_only_with_the_code_it_was_submitted_with(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state,) = start("model=lenet5", *COST, f"results_dir={results}")
    directory = results / state.cell.place
    config, frozen = thaw(directory, submitted=True)
    assert config.model.name == "lenet5"
    assert frozen["name"] == "lenet5"
    monkeypatch.setattr("pvt_bench.launching.cell.source_digest", lambda: "another")
    with pytest.raises(InputError, match=r"launcher\.allow_changed_code=true"):
        thaw(directory, submitted=True)
    assert thaw(directory)[0].model.name == "lenet5", "started by this very process"
    file = directory / FROZEN
    file.write_text(file.read_text().replace('code": false', 'code": true'))
    assert thaw(directory, submitted=True)[0].model.name == "lenet5"
    # A version with other keys: the code is what is named, whatever else is wrong.
    file.write_text(file.read_text().replace('code": true', 'code": false, "gone": 1'))
    with pytest.raises(InputError, match=r"launcher\.allow_changed_code=true"):
        thaw(directory, submitted=True)
    file.unlink()
    with pytest.raises(InputError, match="results_dir is not shared"):
        thaw(directory)
