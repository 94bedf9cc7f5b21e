"""A SLURM of its own on this machine: one controller, one node, two GPUs that are not there.

    python tests/slurm/cluster.py start DIRECTORY    # prints the variable to export
    python tests/slurm/cluster.py stop DIRECTORY

The programs come from Debian's packages slurm-wlm and munge and run as whoever starts them. All
files lie in DIRECTORY, the ports are free ones, and SLURM_CONF alone says which cluster a command
means: so several run side by side.
"""

import argparse
import contextlib
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

DAEMONS = ("slurmd", "slurmctld", "munged")
# A path of a Unix socket has at most 107 characters; SLURM's add up to 37 to the directory's.
LONGEST_DIRECTORY = 70
# Debian keeps the daemons where the PATH of root alone leads.
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
SECONDS = 30.0
# The states that a job does not leave.
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "TIMEOUT",
)  # fmt: skip


def missing() -> str:
    """What keeps a cluster from starting here; empty where nothing does."""
    absent = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=PATH) is None]
    return f"{', '.join(absent)} (Debian packages slurm-wlm and munge)" if absent else ""


def start(directory: Path) -> Path:
    """Start a cluster in an empty directory, which holds all of it.

    Gives the path for SLURM_CONF once the node takes jobs; TimeoutError if it never does,
    ValueError if the directory's path leaves no room for sockets.
    """
    directory = directory.resolve()
    if len(str(directory)) > LONGEST_DIRECTORY:
        raise ValueError(f"a path of at most {LONGEST_DIRECTORY} characters, not {directory}")
    for name in ("state", "spool"):
        (directory / name).mkdir(parents=True)
    config = write_configuration(directory)
    try:
        # --force: munged refuses a directory that other users may not enter.
        call(config, "munged", "--force", *munge_files(directory))
        call(config, "slurmctld")
        call(config, "slurmd")
        wait(lambda: is_idle(config), "an idle node")
    except BaseException:
        print(logs(directory), file=sys.stderr)
        end_daemons(directory)
        raise
    return config


def stop(directory: Path) -> None:
    """End the jobs, then the daemons; gives back control when all are gone."""
    config = directory.resolve() / "slurm.conf"
    try:
        call(config, "scancel", "--me")
        wait(lambda: not call(config, "squeue", "--noheader"), "the end of all jobs")
    finally:
        end_daemons(directory)


def write_configuration(directory: Path) -> Path:
    """Fill in the templates beside this file and make a key; gives the path of slurm.conf."""
    key = directory / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    words = {
        "directory": str(directory),
        "host": socket.gethostname().split(".")[0],
        "user": pwd.getpwuid(os.getuid()).pw_name,
    } | dict(zip(("controller_port", "node_port"), free_ports(2), strict=True))
    for template in Path(__file__).parent.glob("*.conf"):
        text = Template(template.read_text()).substitute(words)
        (directory / template.name).write_text(text)
    return directory / "slurm.conf"


def free_ports(count: int) -> list[str]:
    """Ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        listening = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [str(server.getsockname()[1]) for server in listening]


def munge_files(directory: Path) -> list[str]:
    """Options of munged that keep all its files in the directory."""
    names = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "seed-file": "munge.seed",
        "pid-file": "munged.pid",
        "log-file": "munged.log",
    }
    return [f"--{option}={directory / name}" for option, name in names.items()]


def call(config: Path, *words: str) -> str:
    """What a command of this cluster prints; RuntimeError with its complaint if it fails."""
    environment = os.environ | {"SLURM_CONF": str(config), "PATH": PATH}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def is_idle(config: Path) -> bool:
    """Whether the node takes jobs; not while the controller does not answer yet."""
    try:
        return call(config, "sinfo", "--noheader", "--format=%T") == "idle"
    except RuntimeError:
        return False


def wait(reached: Callable[[], bool], name: str, seconds: float = SECONDS) -> None:
    """Wait for a condition; TimeoutError with its name after so many seconds."""
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError(f"{name} did not come within {seconds:.0f} s")
        time.sleep(0.1)


def end_daemons(directory: Path) -> None:
    """Terminate the daemons that left their process id in the directory, one after the other."""
    for name in DAEMONS:
        file = directory / f"{name}.pid"
        if file.exists():
            end(int(file.read_text()), name)


def end(pid: int, name: str) -> None:
    """Terminate a process and wait until it is gone."""
    if running(pid, name):
        os.kill(pid, signal.SIGTERM)
        wait(lambda: not running(pid, name), f"the end of {name}")


def running(pid: int, name: str) -> bool:
    """Whether the process lives and is what it was: ids are given out again."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return f"Name:\t{name}\n" in status and "State:\tZ" not in status


def logs(directory: Path, lines: int = 40) -> str:
    """The last lines of what each daemon logged."""
    parts = []
    for file in sorted(directory.glob("*.log")):
        parts += [f"== {file}", *file.read_text().splitlines()[-lines:]]
    return "\n".join(parts)


@dataclass(frozen=True)
class Cluster:
    """A running cluster: 8 CPUs, 2 GPUs, partitions main, low (preemptible) and urgent.

    Jobs are named by their id, `7` or `7_0` in an array. What SLURM refuses raises RuntimeError.
    """

    config: Path

    def command(self, *words: str) -> str:
        """What one of SLURM's commands prints."""
        return call(self.config, *words)

    def submit(self, line: str, *options: str) -> str:
        """Submit a line of shell; gives the job's id."""
        output = ("--open-mode=append", f"--output={self.config.parent}/job-%j.txt")
        return self.command("sbatch", "--parsable", *output, *options, f"--wrap={line}")

    def output(self, job: str) -> str:
        """What a job of `submit` printed so far, over all its starts."""
        file = self.config.parent / f"job-{job}.txt"
        return file.read_text() if file.exists() else ""

    def show(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says: JobState, Reason, ExitCode, Restarts and so on."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.command("scontrol", "show", "job", job)))

    def wait_for(self, job: str, *states: str, seconds: float = 60) -> dict[str, str]:
        """Wait until a job has one of the states; gives what `show` does.

        RuntimeError if it ends otherwise, TimeoutError if it takes longer.
        """

        def reached() -> bool:
            state = self.show(job)["JobState"]
            if state in ENDED and state not in states:
                raise RuntimeError(f"job {job} is {state}, which will not become {states}")
            return state in states

        wait(reached, f"job {job} in {' or '.join(states)}", seconds)
        return self.show(job)

    def requeue(self, job: str) -> None:
        """Stop a job and start it again, as an administrator or a failed node does."""
        self.command("scontrol", "requeue", job)
        self.start_again(job)

    def start_again(self, job: str) -> None:
        """Wait until a requeued job is back in the queue, then start it without the usual pause."""
        self.wait_for(job, "PENDING")
        # In the second in which its last start ended the node refuses a job as "already killed".
        self.command("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def preempt(self, job: str) -> None:
        """Put an urgent job that wants the whole node in the place of one in `low`.

        Comes back when the urgent one has ended and the other starts again. No job may run in
        `main`. A job that does not end when told is stopped after its 20 s of grace.
        """
        urgent = self.submit("true", "--partition=urgent", "--exclusive")
        self.wait_for(urgent, "COMPLETED")
        self.start_again(job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    if reason := missing():
        parser.error(f"this machine lacks {reason}")
    if arguments.action == "start":
        print(f"export SLURM_CONF={shlex.quote(str(start(arguments.directory)))}")
    else:
        stop(arguments.directory)


if __name__ == "__main__":
    main()
