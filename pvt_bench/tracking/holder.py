"""Which process holds something, told apart from all others, in containers and after a restart."""

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

BOOT = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")
# What a process number is counted on: containers have the name and the boot in common.
MACHINE = ("host", "boot", "namespace")


def describe(pid: int | None = None) -> dict[str, Any]:
    """Describe a process of this machine, by default this one, in plain values.

    Its number alone is no identity: it is 1 in every container, and numbers come again.
    """
    pid = os.getpid() if pid is None else pid
    return {**_machine(), "pid": pid, "began": _began(pid)}


def is_alive(holder: Mapping[str, Any]) -> bool | None:
    """Whether a process that was described is still there; None where this machine cannot tell.

    Descriptions of earlier versions have the host and the number alone.
    """
    here, pid = _machine(), holder.get("pid")
    if not isinstance(pid, int) or not 0 < pid < 1 << 31 or holder.get("host") != here["host"]:
        return None
    if any(holder.get(key, here[key]) != here[key] for key in MACHINE):
        return None
    if not psutil.pid_exists(pid):
        return False
    began = _began(pid)
    return began != ENDED and began == holder.get("began", began)


def is_this(holder: Mapping[str, Any]) -> bool:
    """Whether the description is that of this process."""
    return holder.get("pid") == os.getpid() and is_alive(holder) is True


ENDED = -1


def _began(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since the boot; ENDED where it waits to be
    reaped; None where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return ENDED if fields[0] in "ZX" else int(fields[19])


@cache
def _machine() -> dict[str, str | None]:
    boot = BOOT.read_text().strip() if BOOT.exists() else None
    namespace = str(NAMESPACE.readlink()) if NAMESPACE.is_symlink() else None
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}
