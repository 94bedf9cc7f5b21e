"""Where a run ran: versions, host, commit."""

import hashlib
import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pvt_bench.tracking import holder

PACKAGES = (
    "pvt-bench",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "hydra-core",
    "omegaconf",
    "mlflow",
    "fvcore",
    "faster-coco-eval",
    "numpy",
)
SOURCE = Path(__file__).resolve().parents[2]
# What results come from; a report that is written into the checkout changes none of it.
CODE = ("pvt_bench", "conf", "experiments", "results/published")


def environment() -> dict[str, Any]:
    """Describe this process: Python, host, packages (null where not installed), commit, SLURM."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": source_commit(),
        "dirty": source_dirty(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def source_commit(source: Path = SOURCE) -> str | None:
    """The commit of the checkout this package runs from; None if it is not one."""
    return _git(source, "rev-parse", "HEAD")


def source_dirty(source: Path = SOURCE) -> bool | None:
    """Whether the checkout's code differs from its commit; None if there is no commit."""
    changes = _git(source, "status", "--porcelain", "--", *CODE)
    return None if changes is None or source_commit(source) is None else changes != ""


def source_version(source: Path = SOURCE) -> str | None:
    """The commit, as `git describe --dirty` marks it where the checkout differs from it."""
    commit = source_commit(source)
    return f"{commit}-dirty" if commit and source_dirty(source) else commit


def launch_here(pid: int | None = None, log: str | None = None) -> dict[str, Any]:
    """Which job this process belongs to, so that others can ask whether it is still there.

    On SLURM its number; elsewhere the process that stands for it, see `holder.describe`.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        array, task = (os.environ.get(f"SLURM_ARRAY_{each}_ID") for each in ("JOB", "TASK"))
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        return {"launcher": "slurm", "job": job}
    pid = pid or int(os.environ.get("SUBMITIT_LOCAL_JOB_ID") or os.getpid())
    launch = {"launcher": "local", **holder.describe(pid)}
    return launch if log is None else launch | {"log": log}


@cache
def source_digest() -> str:
    """SHA-256 over the package's Python files, as they were when this process asked first: what a
    queued run shall be run with."""
    digest = hashlib.sha256()
    package = SOURCE / "pvt_bench"
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(source: Path, *arguments: str) -> str | None:
    # An installed package may lie inside someone else's repository: a virtual environment in it.
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
