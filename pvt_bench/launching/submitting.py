"""How cells reach SLURM: as one job array, submitted once whatever `sbatch` says."""

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import submitit
from submitit.core.utils import (
    DelayedSubmission,
    FailedJobError,
    FailedSubmissionError,
    JobPaths,
)

from pvt_bench.config.schema import Config
from pvt_bench.errors import InputError, nearest
from pvt_bench.launching.cell import Submitted
from pvt_bench.launching.jobs import (
    LONG_PATIENCE_S,
    Job,
    Launch,
    NoAnswer,
    Spoken,
    ask_once,
    ask_slurm,
    insist,
    lines_of,
    quote,
    rows_of,
)
from pvt_bench.launching.resources import for_slurm
from pvt_bench.screen import say

# Of an `sbatch` that did not hear from the controller; anything else is an answer.
UNHEARD = re.compile(
    "timed out|unable to contact|connection|communication|zero bytes|transport endpoint|standby"
    "|unexpected message|temporarily|try again|could not make sense",
    re.IGNORECASE,
)


def check_slurm(config: Config) -> None:
    """Refuse a cell that SLURM cannot run.

    Raises:
        InputError: no SLURM here, options that cannot both be, a partition that it has not.
    """
    launcher = config.launcher
    for_slurm(config, "")
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise InputError(
            "launcher=slurm: there is no sbatch here. Run it on a machine that submits to SLURM, "
            "or launcher=local to run the cells on this one."
        )
    command = ["sinfo", "--noheader", "--format=%R"]
    try:
        partitions = ask_slurm(command, _read_partitions, LONG_PATIENCE_S)
    except NoAnswer as error:
        raise InputError(f"launcher=slurm: SLURM does not answer ({error}).") from error
    if launcher.partition is not None:
        for asked in launcher.partition.split(","):
            if asked not in partitions:
                raise InputError(
                    f"launcher.partition={asked}: SLURM has no such partition. "
                    f"{nearest(asked, partitions)}"
                )


def submit_to_slurm(
    directories: Sequence[Path], config: Config, folder: Path, name: str
) -> list[Launch]:
    """Submit a job array, one task of it a record; what to note of each.

    config: of any of the cells, which ask for the same machines.

    Raises:
        InputError: SLURM did not take it, or nobody can tell whether it did.
    """
    submission = _Submission(directories, config, folder, name)
    try:
        return insist(submission.submit, LONG_PATIENCE_S)
    except NoAnswer as error:
        raise InputError(
            f"SLURM was not heard to take the job: {submission.said or error}\nIt may be in the "
            f"queue all the same. Once SLURM answers, squeue --name={name} shows it, and scancel "
            f"--name={name} ends it; then run the same command again."
        ) from error


class _Submission:
    """A job array until it is known to be in the queue.

    said: by the last `sbatch` that failed; scripts: of all that failed unheard.
    """

    def __init__(
        self, directories: Sequence[Path], config: Config, folder: Path, name: str
    ) -> None:
        self.directories = directories
        self.launcher = config.launcher
        self.folder = folder.absolute()
        self.executor = submitit.SlurmExecutor(
            folder, max_num_timeout=self.launcher.max_num_timeout
        )
        self.executor.update_parameters(**for_slurm(config, name))
        self.scripts: list[str] = []
        self.said = ""

    def submit(self, seconds: float) -> list[Launch]:
        """Submit what is not in the queue yet; what to note of each job.

        Raises:
            NoAnswer: nobody can tell yet; InputError: SLURM does not take it.
        """
        if self.scripts and (number := self._find(seconds)):
            say(f"SLURM has taken the job all the same: {number}")
            return self._adopt(number)
        before = set(self.folder.glob("*.sh"))
        try:
            # submitit prints what SLURM complains of, besides raising it.
            with redirect_stderr(StringIO()), self.executor.batch():
                jobs = [self.executor.submit(Submitted(each)) for each in self.directories]
        except OSError as error:
            raise InputError(f"The job could not be submitted: {error}.") from error
        except (FailedJobError, FailedSubmissionError) as error:
            self.said = _words(error)
            if not UNHEARD.search(self.said):
                raise InputError(
                    f"SLURM did not take the job: {self.said}\nNothing was queued; "
                    "conf/launcher/slurm.yaml has what can be set."
                ) from error
            self.scripts += [str(path) for path in set(self.folder.glob("*.sh")) - before]
            raise NoAnswer(" ".join(self.said.splitlines())) from error
        return [_launch(job.job_id, job.paths) for job in jobs]

    def _find(self, seconds: float) -> str | None:
        """The number of the job that an unheard `sbatch` has left in the queue."""
        words = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%F|%T|%o"]
        found = ask_once(words, _read_scripts, seconds)
        return next((found[script] for script in self.scripts if script in found), None)

    def _adopt(self, number: str) -> list[Launch]:
        """Give a job of the queue what it waits for at its start: the cells, pickled."""
        launches = []
        for task, directory in enumerate(self.directories):
            job = number if len(self.directories) == 1 else f"{number}_{task}"
            paths = JobPaths(self.folder, job, 0)
            submitted = DelayedSubmission(Submitted(directory))
            submitted.set_timeout(self.launcher.timeout_min, self.launcher.max_num_timeout)
            paths.folder.mkdir(parents=True, exist_ok=True)
            submitted.dump(paths.submitted_pickle)
            launches.append(_launch(job, paths))
        return launches


def _launch(job: str, paths: JobPaths) -> Launch:
    return {"launcher": "slurm", "job": job, "log": str(paths.stdout)}


def _words(error: Exception) -> str:
    """All that `sbatch` said."""
    printed = getattr(error.__cause__, "output", None)
    return "\n".join(filter(None, (printed, str(error)))).strip() or type(error).__name__


def _read_scripts(spoken: Spoken) -> dict[str, str]:
    """The job's number by the script that it was submitted with."""
    return {script: number for number, state, script in rows_of(spoken) if Job(state).alive}


def _read_partitions(spoken: Spoken) -> list[str]:
    partitions = sorted(set(lines_of(spoken)))
    if any(" " in each.strip() for each in partitions):
        raise NoAnswer(quote(spoken))
    return [each.strip() for each in partitions]
