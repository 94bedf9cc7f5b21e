"""Sweeps on a real SLURM: arrays, preemption, requeues, time limits, crashes, several processes."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
import torch
from conftest import StandIn
from mlflow.entities import Run
from safetensors.torch import load_file, save_file
from slurm.cluster import Cluster, wait
from sweeping import (
    TRAIN,
    launch_all,
    losses_in,
    read_sweep,
    runs_in,
    start,
)

from pvt_bench import status
from pvt_bench.config.command_line import compose_cells
from pvt_bench.errors import InputError
from pvt_bench.launching.starting import failed
from pvt_bench.launching.sweep import DONE, FAILED, STOPPED, State, Sweep, look
from pvt_bench.launching.watching import conclude
from pvt_bench.launching.watching import wait as wait_for_sweep

pytest_plugins = ("slurm_cluster",)

SLURM = ("launcher=slurm", "launcher.timeout_min=60", "trainer.checkpoint_every=20")
STEPS = 250
# Loading the libraries takes processes that share two cores a while.
PATIENCE_S = 180.0


@pytest.fixture
def words(results: Path, digits: Path) -> tuple[str, ...]:
    place = (f"results_dir={results}", f"dataset.root={digits}")
    return (*TRAIN, *SLURM, *place, f"schedule.steps={STEPS}")


@pytest.fixture
def frozen() -> Iterator[list[int]]:
    """Processes that a test has stopped, which go on when it ends."""
    stopped: list[int] = []
    yield stopped
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def named(states: list[State]) -> dict[str, State]:
    """The states of cells that were told apart by `schedule.name`, or by another last word."""
    return {state.cell.name.split("=")[-1].split()[0]: state for state in states}


def freeze_in_training(records: Mapping[str, Path], frozen: list[int], step: int = 8) -> list[int]:
    """Stop cells' processes, each in the middle of its training; their numbers."""
    pids: dict[str, int] = {}

    def stop_those_that_train() -> bool:
        for name in records.keys() - pids.keys():
            if step in losses_in(records[name]):
                pid = json.loads((records[name] / "status.json").read_text())["pid"]
                os.kill(pid, signal.SIGSTOP)
                frozen.append(pid)
                pids[name] = pid
                assert STEPS not in losses_in(records[name]), f"{name} was stopped too late"
        return pids.keys() == records.keys()

    wait(stop_those_that_train, f"step {step}", PATIENCE_S)
    return [pids[name] for name in records]


def let_go_on(pid: int) -> None:
    # SLURM lets a job go on too, with some of its signals.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def awaits(pid: int, number: int) -> bool:
    """Whether a stopped process has a signal to hear when it goes on, or has heard it and left."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    pending = [int(line.split()[1], 16) for line in lines if line.startswith(("ShdPnd", "SigPnd"))]
    return any(each >> (number - 1) & 1 for each in pending)


def job_of(sweep: Sweep, state: State) -> str:
    return str(sweep.status(state.cell)["launch"]["job"])


def jobs_of(cluster: Cluster) -> set[str]:
    """The numbers of all jobs that SLURM remembers."""
    listed = cluster.command("squeue", "--noheader", "--states=all", "--array", "--format=%i")
    return set(listed.split())


def children_in(results: Path) -> dict[str, Run]:
    """The runs of cells in MLflow by their identity."""
    runs = [run for run in runs_in(results) if "kind" not in run.data.tags]
    assert len({run.data.tags["identity"] for run in runs}) == len(runs), "a run each"
    return {run.data.tags["identity"]: run for run in runs}


def finish(cluster: Cluster, sweep: Sweep) -> list[State]:
    """Wait for the end of all cells as the command does, without SLURM's pause after a requeue."""
    started: set[str] = set()

    def hasten() -> bool:
        for state in look(sweep):
            job = (state.status.get("launch") or {}).get("job")
            if state.job.state == "PENDING" and "Begin" in state.job.reason and job not in started:
                started.add(str(job))
                cluster.start_again(str(job))
        return False

    return conclude(sweep, wait_for_sweep(sweep, hasten))


def history(results: Path, run_id: str) -> list[int]:
    client = mlflow.MlflowClient(f"sqlite:///{results}/mlflow.db")
    return sorted(point.step for point in client.get_metric_history(run_id, "train/loss"))


def test_a_study_as_an_array_with_a_gpu_for_each_job(
    cluster: Cluster, words: tuple[str, ...], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two jobs at once, each with its own of two GPUs; the same command again runs nothing."""
    ratios = "model.sr_ratios=[8,4,2,1],[1,1,1,1]"
    gpus = ("launcher.gpus=1", "launcher.setup=['echo gpus $CUDA_VISIBLE_DEVICES']")
    study = ("sweep=sr_ratios", *words, ratios, *gpus, "schedule.steps=4")
    states = start(*study)
    assert [state.word for state in states] == [DONE, DONE], [state.why for state in states]
    logs = [Path(state.status["launch"]["log"]).read_text() for state in states]
    assert sorted(log.partition("gpus ")[2].split()[0] for log in logs) == ["0", "1"]

    sweep = read_sweep(results, "sr_ratios")
    table = (sweep.directory / "table.md").read_text()
    for state in states:
        row = state.status["result"]
        shown = [row["cost/params_m"], row["cost/gflops"], 100 * row["val/top1"]]
        name = state.cell.name.replace("[", r"\[").replace("]", r"\]")
        assert f"| {name} | done | {shown[0]:.1f} | {shown[1]:.1f} |" in table
        assert f"| {shown[2]:.1f} |" in table
    runs = {run.info.run_name: run for run in runs_in(results)}
    parent = runs.pop(sweep.name)
    assert ["sr_ratios=[1,1,1,1]" in name for name in runs].count(True) == 1
    assert len(runs) == 2
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}
    assert parent.data.tags["mlflow.note.content"] == table

    before = jobs_of(cluster)
    capsys.readouterr()
    again = start(*study)
    assert jobs_of(cluster) == before
    assert [state.status["attempt"] for state in again] == [1, 1]
    assert (sweep.directory / "table.md").read_text() == table
    shown = capsys.readouterr().out
    assert all(state.cell.name in shown for state in states)


def test_whatever_happens_to_a_job_the_weights_are_the_same(
    cluster: Cluster,
    words: tuple[str, ...],
    results: Path,
    frozen: list[int],
    stand_in: StandIn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Preempted, requeued, out of time, killed, cancelled: each goes on as if nothing had been."""
    requeues = stand_in("scontrol", "echo 'Socket timed out' >&2; exit 1", times=2)
    names = ("preempted", "undisturbed", "requeued", "late", "killed", "cancelled")
    study = (
        *words, f"schedule.name={','.join(names)}", "launcher.partition=low",
        "launcher.signal_delay_s=50", "launcher.timeout_min=5",
    )  # fmt: skip
    # One at a time first: an urgent job takes the place of all that run.
    cells = named(start(*study, "launcher.jobs=1", "launcher.detach=true"))
    sweep = read_sweep(results, "name")
    records = {name: sweep.record(state.cell) for name, state in cells.items()}
    jobs = {name: job_of(sweep, state) for name, state in cells.items()}

    (preempted,) = freeze_in_training({"preempted": records["preempted"]}, frozen)
    urgent = cluster.submit("true", "--partition=urgent", "--exclusive")
    wait(lambda: awaits(preempted, signal.SIGUSR2), "the signal of a preemption")
    let_go_on(preempted)
    cluster.wait_for(urgent, "COMPLETED")
    array = jobs["preempted"].partition("_")[0]
    cluster.command("scontrol", "update", f"JobId={array}", "ArrayTaskThrottle=6")
    cluster.start_again(jobs["preempted"])

    others = {name: records[name] for name in names[2:]}
    pids = dict(zip(others, freeze_in_training(others, frozen), strict=True))
    # Each of its starts has as long, so that it needs a longer limit for the next one.
    cluster.command("scontrol", "update", f"JobId={jobs['late']}", "TimeLimit=1")
    cluster.command("scontrol", "requeue", jobs["requeued"])
    os.kill(pids["killed"], signal.SIGKILL)
    let_go_on(pids["requeued"])
    cluster.command("scancel", jobs["cancelled"])
    let_go_on(pids["cancelled"])
    wait(lambda: awaits(pids["late"], signal.SIGUSR2), "the signal of a time limit", 90)
    let_go_on(pids["late"])
    cluster.wait_for(jobs["late"], "PENDING")
    cluster.command("scontrol", "update", f"JobId={jobs['late']}", "TimeLimit=5")

    states = named(finish(cluster, sweep))
    words_of = {name: state.word for name, state in states.items()}
    assert words_of == dict.fromkeys(names[:4], DONE) | {"killed": FAILED, "cancelled": STOPPED}
    assert "ended as FAILED" in states["killed"].why
    runs = children_in(results)
    ends = {name: runs[record.name.rpartition("-")[2]] for name, record in records.items()}
    assert ends["cancelled"].info.status == "KILLED"
    assert ends["killed"].info.status == "FAILED"
    assert status.main([f"results_dir={results}"]) == 1
    assert "stopped" in capsys.readouterr().out

    before = jobs_of(cluster)
    again = named(start(*study, "launcher.jobs=6"))
    assert len(jobs_of(cluster) - before) == 2, "killed and cancelled"
    assert {state.word for state in again.values()} == {DONE}
    attempts = {name: state.status["attempt"] for name, state in again.items()}
    assert attempts == dict.fromkeys(names, 2) | {"undisturbed": 1}

    whole = load_file(records["undisturbed"] / "weights.safetensors")
    scores = again["undisturbed"].status["result"]["val/top1"]
    runs = children_in(results)
    assert len(runs) == len(names)
    for name, record in records.items():
        weights = load_file(record / "weights.safetensors")
        assert weights.keys() == whole.keys()
        assert all(torch.equal(weights[key], whole[key]) for key in whole), name
        assert again[name].status["result"]["val/top1"] == scores
        run = runs[record.name.rpartition("-")[2]]
        assert (run.info.status, run.data.tags["attempt"]) == ("FINISHED", str(attempts[name]))
        assert list(losses_in(record)) == list(range(1, STEPS + 1)), name
        assert history(results, run.info.run_id) == list(range(1, STEPS + 1)), name
    log = Path(again["late"].status["launch"]["log"]).read_text()
    assert "this job is timed-out" in log
    assert requeues.read_text().count("\n") == 4, "two that SLURM did not hear, and one a job"


def test_three_of_four_fail_each_with_its_reason(
    cluster: Cluster, words: tuple[str, ...], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One raises, one needs too much memory, one has a loss that is no number."""
    torn = results / "torn.safetensors"
    save_file({"backbone.norm": torch.zeros(3)}, torn)
    cells = {
        "good": ("seed=0",),
        "raises": (f"weights={torn}",),
        "memory": ("seed=3", "launcher.mem_gb=0.2"),
        "nan": ("seed=4", "schedule.lr=1e30"),
    }
    # One command sweeps one grid: here four grids make the cells of a sweep.
    composed = []
    for each in cells.values():
        composed += compose_cells(["-m", *words, "schedule.steps=4", *each])
    states = launch_all(composed)
    assert [state.word for state in states] == [DONE] + [FAILED] * 3
    assert failed(states)
    raised, memory, nan = (state.why for state in states[1:])
    assert "torn.safetensors" in raised
    # SLURM says it of the job or of the step.
    assert "memory limit" in memory
    assert "The loss is not finite: the cross_entropy loss" in nan
    assert status.main([f"results_dir={results}"]) == 1
    shown = capsys.readouterr().out
    assert "1 done, 3 failed" in shown

    before = jobs_of(cluster)
    again = launch_all(composed)
    assert [state.word for state in again] == [state.word for state in states]
    assert len(jobs_of(cluster) - before) == 3
    assert again[0].status["attempt"] == 1


def test_two_processes_are_one_run_on_slurm_as_here(
    cluster: Cluster, words: tuple[str, ...], results: Path
) -> None:
    """By SLURM and by this machine's launcher bit for bit; as one process up to rounding."""
    words = (*words, "schedule.steps=6", "trainer.checkpoint_every=3")
    processes = {"slurm": 2, "local": 2, "in_process": 1}
    losses, weights = {}, {}
    for launcher, devices in processes.items():
        place = results.parent / launcher
        (state,) = start(
            *words, f"launcher={launcher}", f"trainer.devices={devices}", f"results_dir={place}"
        )
        assert state.word == DONE, state.why
        record = place / state.cell.place
        losses[launcher] = losses_in(record)
        weights[launcher] = load_file(record / "weights.safetensors")
    assert list(losses["slurm"]) == list(range(1, 7))
    assert losses["slurm"] == losses["local"]
    for name, weight in weights["slurm"].items():
        assert torch.equal(weight, weights["local"][name]), name
    assert losses["slurm"] == pytest.approx(losses["in_process"], rel=1e-4)


def test_what_slurm_cannot_run_is_told(
    cluster: Cluster, words: tuple[str, ...], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is queued; and nothing is left as if it would still come."""
    with pytest.raises(InputError, match=r"no such partition\. Did you mean low"):
        start(*words, "launcher.partition=lwo")
    assert not (results / "runs").exists()
    # Versions of SLURM differ in what they name.
    with pytest.raises(InputError, match=r"did not take the job: .*([Mm]emory|node configuration)"):
        start(*words, "launcher.mem_gb=4000")
    assert {state.word for state in look(read_sweep(results, "run"))} == {STOPPED}
    assert {run.info.status for run in runs_in(results)} == {"KILLED"}
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=r"there is no sbatch here.*launcher=local"):
        start(*words)
    monkeypatch.undo()
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    assert cluster.command("squeue", "--noheader") == "", "nothing waits"
