"""Random sequences of faults over a training; `torture.py` says which, and what must hold after."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("torture.py")
AT_ONCE = 5


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 25, AT_ONCE))
@pytest.mark.parametrize("launcher", ["in_process", "local"])
def test_nothing_is_lost_and_nothing_is_doubled(launcher: str, first: int) -> None:
    command = ["unshare", "--mount", "--map-root-user", sys.executable, SCRIPT, launcher]
    done = subprocess.run(
        [*command, str(first), str(first + AT_ONCE)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.count(": held") == AT_ONCE, done.stdout + done.stderr
