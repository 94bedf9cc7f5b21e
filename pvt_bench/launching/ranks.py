"""One run on several devices of this machine, one process each, attached to this terminal."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from pvt_bench.screen import warn

GRACE_S = 30.0


def run_ranks(directory: Path, processes: int) -> int:
    """Run a frozen cell with that many processes; the exit code of the first that failed.

    Ctrl-C reaches them all, and they stop after the same step. Where one fails, the others are
    ended, since they would wait for it.
    """
    port = str(_free_port())
    ranks = [_start(directory, rank, processes, port) for rank in range(processes)]

    def end_all(number: int, frame: FrameType | None) -> None:
        for each in ranks:
            each.send_signal(number)

    handler = signal.signal(signal.SIGTERM, end_all)
    try:
        return _wait(directory, ranks)
    except KeyboardInterrupt:
        return _wait(directory, ranks)
    finally:
        signal.signal(signal.SIGTERM, handler)
        for each in ranks:
            each.kill()


def _start(directory: Path, rank: int, processes: int, port: str) -> "subprocess.Popen[bytes]":
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    command = [sys.executable, "-m", "pvt_bench.launching.cell", str(directory)]
    if rank == 0:
        return subprocess.Popen(command, env=os.environ | place)
    with _log(directory, rank).open("wb") as log:
        return subprocess.Popen(command, env=os.environ | place, stdout=log, stderr=log)


def _log(directory: Path, rank: int) -> Path:
    return directory / f"process{rank}.log"


def _wait(directory: Path, ranks: "list[subprocess.Popen[bytes]]") -> int:
    failed_at, first = 0.0, None
    while any(each.poll() is None for each in ranks):
        if first is None and any(each.poll() for each in ranks):
            first = next(rank for rank, each in enumerate(ranks) if each.poll())
            failed_at = time.monotonic()
        if first is not None and time.monotonic() - failed_at > GRACE_S:
            break
        time.sleep(0.1)
    codes = [each.poll() for each in ranks]
    if first is None:
        return next((code for code in codes if code), 0)
    if first:
        log = _log(directory, first)
        warn(f"process {first} of {len(ranks)} was the first to end; its log: {log}")
    return codes[first] or 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
