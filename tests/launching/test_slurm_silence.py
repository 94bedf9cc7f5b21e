"""A SLURM that fails, hangs or talks nonsense: asked again, and no job is lost or sent twice."""

import shlex
import time
from pathlib import Path

import pytest
from conftest import StandIn
from slurm.cluster import Cluster
from sweeping import COST, read_sweep, start

from pvt_bench import status
from pvt_bench.errors import InputError
from pvt_bench.launching import jobs, submitting
from pvt_bench.launching.starting import failed
from pvt_bench.launching.sweep import DONE, QUEUED, STOPPED, UNKNOWN, Sweep, look

pytest_plugins = ("slurm_cluster",)

MORE = "+launcher.additional_parameters"
HELD = f"{MORE}.hold=true"
FAILS = "echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1"
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
UNHEARD = f"echo '{TIMED_OUT}' >&2; exit 1"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know as little of SLURM as a new process."""
    monkeypatch.setattr(jobs, "_outage", jobs._Outage(rest=0.1))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)
    monkeypatch.setattr(jobs, "FIRST_REST_S", 0.1)
    monkeypatch.setattr(jobs, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(jobs, "PATIENCE_S", 1.0)
    monkeypatch.setattr(submitting, "LONG_PATIENCE_S", 5.0)


@pytest.fixture
def words(results: Path) -> tuple[str, ...]:
    place = f"results_dir={results}"
    return (
        "model=lenet5",
        *COST,
        "trainer=cpu",
        "launcher=slurm",
        "launcher.timeout_min=60",
        place,
    )


def jobs_of(cluster: Cluster, sweep: Sweep) -> list[str]:
    """The numbers of the sweep's jobs in the queue."""
    listed = ("squeue", "--noheader", "--array", f"--name={sweep.name}", "--format=%i")
    return sorted(cluster.command(*listed).split())


def test_status_where_slurm_does_not_answer(
    cluster: Cluster,
    words: tuple[str, ...],
    results: Path,
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It asks again, then says that it cannot know; the record and MLflow are left as they are."""
    (state,) = start(*words, HELD, "launcher.detach=true")
    assert state.word == QUEUED
    capsys.readouterr()

    def shown(line: str, times: int = 1000) -> str:
        stand_in("squeue", line, times)
        forget(monkeypatch)
        began = time.monotonic()
        assert status.main([f"results_dir={results}"]) == 0
        assert time.monotonic() - began < 20
        return capsys.readouterr().out

    text = shown(FAILS, times=2)
    assert text.count("warning: SLURM does not answer (squeue: slurm_load_jobs error: Socket") == 1
    assert "1 queued" in text
    assert "unknown" not in text
    for line in (FAILS, "exec sleep 60", "echo '7|RUNN'; exit 0", "printf '7_1|PEND'; exit 0"):
        text = shown(line)
        assert "1 unknown" in text
        assert "unknown: SLURM does not answer (squeue: " in text
        assert "run the same command again later" in text
    (state,) = look(read_sweep(results, "run"))
    assert (state.word, state.status["state"]) == (UNKNOWN, "queued")
    assert "1 queued" in shown(":")


def test_where_there_is_no_squeue(
    cluster: Cluster,
    words: tuple[str, ...],
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start(*words, HELD, "launcher.detach=true")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("PATH", "/nowhere")
        assert status.main([f"results_dir={results}"]) == 0
    assert "squeue is not on this machine" in capsys.readouterr().out


def test_what_is_submitted_is_said_where_slurm_falls_silent(
    cluster: Cluster,
    words: tuple[str, ...],
    results: Path,
    stand_in: StandIn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in("squeue", FAILS)
    states = start(*words, HELD, "launcher.detach=true")
    assert [state.word for state in states] == [UNKNOWN]
    assert not failed(states)
    text = capsys.readouterr().out
    assert "1 cells are queued" in text
    assert f"python -m pvt_bench.status sweep={read_sweep(results, 'run').name} shows" in text


def test_sbatch_is_quoted_whole(
    cluster: Cluster, words: tuple[str, ...], results: Path, stand_in: StandIn
) -> None:
    lines = ("sbatch: error: no more hours", "sbatch: error: ask vision-admins", "sbatch: error: 7")
    stand_in("sbatch", f"printf '%s\\n' {shlex.join(lines)} >&2; exit 1")
    with pytest.raises(InputError) as refused:
        start(*words)
    assert "\n".join(lines) in str(refused.value)
    assert [state.word for state in look(read_sweep(results, "run"))] == [STOPPED]


@pytest.mark.parametrize("sbatch", [UNHEARD, 'REAL "$@" > /dev/null; echo Submi; exit 0'])
def test_a_job_is_submitted_once_though_sbatch_is_not_heard(
    sbatch: str, cluster: Cluster, words: tuple[str, ...], results: Path, stand_in: StandIn
) -> None:
    """Whether SLURM has taken it or not."""
    calls = stand_in("sbatch", sbatch, times=1)
    (state,) = start(*words, HELD, "launcher.detach=true")
    sweep = read_sweep(results, "run")
    assert jobs_of(cluster, sweep) == [sweep.status(state.cell)["launch"]["job"]]
    assert calls.read_text().count("\n") == (1 if "REAL" in sbatch else 2)


def test_an_array_taken_unheard_is_waited_for_however_long_slurm_is_away(
    cluster: Cluster,
    words: tuple[str, ...],
    stand_in: StandIn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is found in the queue; then SLURM is given up and asked again several times."""
    submitted = stand_in("sbatch", f'REAL "$@" > /dev/null; {UNHEARD}')
    asked = stand_in("squeue", f"[ $(wc -l < $0.calls) = 1 ] || {{ {FAILS}; }}", times=10)
    states = start(*words[1:], "model=lenet5,resnet18")
    assert [state.word for state in states] == [DONE, DONE], [state.why for state in states]
    jobs = [str(state.status["launch"]["job"]) for state in states]
    assert [job.partition("_")[2] for job in jobs] == ["0", "1"]
    assert all(Path(state.status["launch"]["log"]).exists() for state in states)
    assert submitted.read_text().count("\n") == 1
    assert asked.read_text().count("\n") > 10
    text = capsys.readouterr().out
    assert "SLURM has taken the job all the same" in text
    assert text.count("warning: SLURM does not answer (sbatch: ") == 1
    assert text.count("warning: SLURM does not answer (squeue: ") == 1
    assert "2 unknown" in text
    assert text.count("SLURM answers again") == 1


def test_no_second_job_while_nobody_can_tell(
    cluster: Cluster, words: tuple[str, ...], results: Path, stand_in: StandIn
) -> None:
    calls = stand_in("sbatch", UNHEARD)
    stand_in("squeue", FAILS)
    with pytest.raises(
        InputError, match=r"in the queue all the same(.|\n)*scancel --name=run"
    ) as e:
        start(*words)
    assert TIMED_OUT in str(e.value)
    assert calls.read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "option", "expected"),
    [
        (("launcher.gpus=a100:2",), "gpus-per-node", "gres:gpu:a100:2"),
        ((f"{MORE}.gres=gpu:a100:1",), "gres", "gres:gpu:a100:1"),
        (("launcher.gpus=2", f"{MORE}.gres=gpu:a100:2"), "gres", "gres:gpu:a100:2"),
        (("launcher.gpus=2", f"{MORE}.gpus-per-node=2"), "gpus-per-node", "gres:gpu:2"),
    ],
)
def test_gpus_as_slurm_hears_of_them(
    typed: tuple[str, ...],
    option: str,
    expected: str,
    cluster: Cluster,
    words: tuple[str, ...],
    results: Path,
) -> None:
    (state,) = start(*words, HELD, "launcher.detach=true", *typed)
    sweep = read_sweep(results, "run")
    job = str(sweep.status(state.cell)["launch"]["job"])
    assert cluster.show(job)["TresPerNode"] == expected
    script = (sweep.directory / "jobs" / f"{job}_submission.sh").read_text()
    asked = [
        line for line in script.splitlines() if line.startswith(("#SBATCH --g", "#SBATCH --n"))
    ]
    assert [line.partition("=")[0][10:] for line in asked if "gpu" in line] == [option]
