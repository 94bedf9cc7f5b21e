"""launcher=local: cells as processes of this machine, stopped, killed, and gone on with."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from conftest import environment, wait
from forking import Forked
from safetensors.torch import load_file
from sweeping import COST, TRAIN, losses_in, read_sweep, runs_in, stand, start

from pvt_bench import status
from pvt_bench.errors import InputError
from pvt_bench.launching.sweep import DONE, FAILED, look

LOCAL = ("launcher=local", "trainer.checkpoint_every=5")


@pytest.fixture
def words(results: Path, digits: Path) -> tuple[str, ...]:
    return (*TRAIN, *LOCAL, f"results_dir={results}", f"dataset.root={digits}")


def statuses(results: Path) -> dict[str, dict[str, object]]:
    """The status of each record by its directory's name without the hash."""
    paths = results.glob("runs/*/*/*/status.json")
    return {path.parent.name.rpartition("-")[0]: json.loads(path.read_text()) for path in paths}


def command(directory: Path, *words: str) -> Forked:
    """The command with a terminal's process group of its own, which Ctrl-C reaches as a whole."""
    return Forked(words, directory, environment())


def test_two_at_a_time_with_a_gpu_each(results: Path) -> None:
    """Three cells, two GPUs that are not there: each cell has one, and no more than two run."""
    states = start(
        "model=lenet5,resnet18,resnet34", *COST, f"results_dir={results}", "trainer=cpu",
        "launcher=local", "launcher.jobs=2", "launcher.gpus=1", "launcher.visible_gpus=[4,7]",
        f"launcher.setup=['echo $CUDA_VISIBLE_DEVICES $(date +%s%N) > {results}/$$.begin']",
    )  # fmt: skip
    assert stand(states) == {"lenet5": DONE, "resnet18": DONE, "resnet34": DONE}
    begun = [(results / f"{state.status['launch']['pid']}.begin").read_text() for state in states]
    gpus, times = zip(*(text.split() for text in begun), strict=True)
    assert sorted(gpus[:2]) == ["4", "7"]
    assert gpus[2] in ("4", "7")
    began = [int(each) / 1e9 for each in times]
    ended = [
        (results / state.cell.place / "description.md").stat().st_mtime for state in states[:2]
    ]
    assert max(began[:2]) < min(ended) < began[2]


def test_a_killed_cell_is_told_and_the_command_again_goes_on(
    words: tuple[str, ...], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 of one of two cells, from a launcher that was detached; the other is not touched."""
    names = "schedule.name=killed,whole"
    started = start(*words, names, "schedule.steps=60", "launcher.jobs=2", "launcher.detach=true")
    (killed,) = (state.cell for state in started if "killed" in state.cell.name)
    record = results / killed.place
    sweep = read_sweep(results, "name")
    wait(lambda: len(losses_in(record)) >= 12, "the twelfth step")
    os.kill(json.loads((record / "status.json").read_text())["pid"], signal.SIGKILL)
    wait(lambda: (sweep.directory / "table.md").exists(), "the table of the detached launcher")
    found = {state.cell.name.split()[1]: state for state in look(sweep)}
    assert found["name=whole"].word == DONE
    assert found["name=killed"].word == FAILED
    assert "its process is gone" in found["name=killed"].why
    assert status.main([f"results_dir={results}"]) == 1
    assert str(found["name=killed"].status["launch"]["log"]) in capsys.readouterr().out
    ends = ["FAILED", "FAILED", "FINISHED"]
    wait(
        lambda: sorted(run.info.status for run in runs_in(results)) == ends, "their ends in MLflow"
    )

    again = start(*words, names, "schedule.steps=60", "launcher.jobs=2")
    attempts = {state.cell.name.split()[1]: state.status["attempt"] for state in again}
    assert attempts == {"name=killed": 2, "name=whole": 1}
    assert {state.word for state in again} == {DONE}
    assert list(losses_in(record)) == list(range(1, 61))
    results_of = [state.status["result"]["val/top1"] for state in again]
    assert results_of[0] == results_of[1]
    weights = [load_file(results / state.cell.place / "weights.safetensors") for state in again]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert {run.info.status for run in runs_in(results)} == {"FINISHED"}
    assert len(runs_in(results)) == 3


def test_ctrl_c_stops_the_cells_and_the_command_again_goes_on(
    words: tuple[str, ...], results: Path
) -> None:
    """One cell at work saves and stops, one that waits is stopped before it has begun."""
    typed = ("-m", *words, "schedule.steps=300", "seed=0,1")
    process = command(results, *typed)
    wait(lambda: any(s["state"] == "running" for s in statuses(results).values()), "a start")
    (at_work,) = (
        path.parent
        for path in results.glob("runs/*/*/*/status.json")
        if json.loads(path.read_text())["state"] == "running"
    )
    wait(lambda: len(losses_in(at_work)) >= 3, "the third step")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "2 stopped" in output
    stopped = json.loads((at_work / "status.json").read_text())
    assert stopped["state"] == "interrupted"
    assert 3 <= stopped["step"] < 300
    assert (at_work / "checkpoints").exists()
    ends = {run.data.tags.get("kind", run.info.run_name): run.info for run in runs_in(results)}
    assert {info.status for info in ends.values()} == {"KILLED"}
    assert len(ends) == 2, "the sweep and the cell that has begun"
    again = start(*words, "schedule.steps=300", "seed=0")
    assert [state.word for state in again] == [DONE]
    assert again[0].status["attempt"] == 2
    assert list(losses_in(at_work)) == list(range(1, 301))


def test_two_processes_are_one_run(words: tuple[str, ...], results: Path) -> None:
    """As many images a step as one process, and so the same numbers up to rounding."""
    words = (*words, "schedule.steps=6", "launcher=in_process")
    (state,) = start(*words, "trainer.devices=2")
    assert state.word == DONE, state.why
    alone = results.parent / "alone"
    (one,) = start(*words, f"results_dir={alone}")
    losses = losses_in(results / state.cell.place)
    assert list(losses) == list(range(1, 7))
    assert losses == pytest.approx(losses_in(alone / one.cell.place), rel=1e-4)
    # One process finds the finished run of two.
    (same,) = start(*words)
    assert same.cell.place == state.cell.place
    assert same.status["attempt"] == 1


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (("trainer.devices=3",), "schedule.batch_size=3"),
        (("trainer.num_nodes=2",), "launcher=slurm"),
        (("trainer.devices=0",), "at least 1"),
        (("launcher.gpus=1", "launcher.visible_gpus=[0]", "launcher.jobs=2"), "launcher.jobs=1"),
        (("mode=cost", "trainer.devices=2"), "trainer.devices=1"),
    ],
)
def test_devices_that_do_not_fit(
    wrong: tuple[str, ...], expected: str, words: tuple[str, ...], results: Path
) -> None:
    with pytest.raises(InputError) as refused:
        start(*words, *wrong)
    assert expected in str(refused.value)
    assert not (results / "runs").exists()


def test_lost_before_it_began(
    words: tuple[str, ...], results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cell whose shell fails never has its record: the sweep says so."""
    setup = "launcher.setup=['echo no such module >&2; exit 3']"
    (state,) = start(*words, "schedule.steps=2", setup)
    assert state.word == FAILED
    assert "before it could write to the record" in state.why
    assert "no such module" in capfd.readouterr().err


def test_the_same_sweep_twice_at_the_same_moment(words: tuple[str, ...], results: Path) -> None:
    """Each cell runs once, and both commands end with the whole table."""
    typed = ("-m", *words, "schedule.steps=20", "seed=0,1", "launcher.jobs=2")
    both = [command(results, *typed) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    for process, output in zip(both, outputs, strict=True):
        assert process.returncode == 0, output
        assert "2 done" in output
    assert [status["attempt"] for status in statuses(results).values()] == [1, 1]
    assert len(runs_in(results)) == 3, "two cells and one sweep"
