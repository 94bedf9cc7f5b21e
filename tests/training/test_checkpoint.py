"""Checkpoints are whole or not there, and a damaged one is passed over."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import needs

from pvt_bench.errors import InputError
from pvt_bench.training.checkpoint import (
    delete_checkpoints,
    find_newest,
    load_checkpoint,
    save_checkpoint,
)


def load_newest(directory: Path, warn: Callable[[str], None] = print) -> dict[str, Any] | None:
    newest = find_newest(directory, warn)
    return load_checkpoint(newest) if newest else None


def save(directory: Path, step: int) -> Path:
    return save_checkpoint(directory, step, {"step": step, "weight": torch.full((100,), step)})


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000010.ckpt",
        "step-00000010.sha256",
        "step-00000100.ckpt",
        "step-00000100.sha256",
    ]
    state = load_newest(tmp_path)
    assert state is not None
    assert state["step"] == 100
    assert state["weight"].eq(100).all()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "no digest"])
def test_a_damaged_one_is_named_and_passed_over(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    elif damage == "empty":
        newest.write_bytes(b"")
    else:
        newest.with_suffix(".sha256").unlink()
    warnings: list[str] = []
    state = load_newest(tmp_path, warnings.append)
    assert state is not None
    assert state["step"] == 1
    assert len(warnings) == 1
    assert newest.name in warnings[0]


def test_nothing_there_is_nothing_loaded(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none") is None
    delete_checkpoints(tmp_path / "none")


def test_deleting_leaves_no_folder(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 1)
    delete_checkpoints(tmp_path / "checkpoints")
    assert not (tmp_path / "checkpoints").exists()


FILL = """
import sys, torch
from pathlib import Path
from pvt_bench.errors import InputError
from pvt_bench.training.checkpoint import find_newest, load_checkpoint, save_checkpoint
folder = Path(sys.argv[1])
save_checkpoint(folder, 1, {"step": 1, "weight": torch.zeros(100_000)})
try:
    save_checkpoint(folder, 2, {"step": 2, "weight": torch.zeros(300_000)})
except InputError as error:
    print(error)
print(load_checkpoint(find_newest(folder))["step"], *sorted(path.name for path in folder.iterdir()))
"""


def on_a_full_disk(code: str, disk: Path) -> str:
    """What Python code prints that has a disk of one megabyte, which nobody else sees."""
    needs(shutil.which("unshare"), "unshare")
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {disk}"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", f'{mount} && exec "$@"', "sh",
         sys.executable, "-c", code, str(disk)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_leaves_the_older_one_whole_and_says_what_is_missing(tmp_path: Path) -> None:
    told, left = on_a_full_disk(FILL, tmp_path / "disk").splitlines()
    assert "The checkpoint of step 2 could not be written" in told
    assert "It takes 1.2 MB and 0.6 MB are free: make room for 0.6 MB more." in told
    assert "same command" in told
    assert left == "1 step-00000001.ckpt step-00000001.sha256"


WRITE = """
import os, sys
from pathlib import Path
import pandas as pd, torch
from PIL import Image
from safetensors.torch import save_file
from pvt_bench.config.messages import explain
disk = Path(sys.argv[1])
for write in (
    lambda: save_file({"a": torch.zeros(10**6)}, str(disk / "a.safetensors")),
    lambda: Image.frombytes("RGB", (900, 900), os.urandom(900 * 900 * 3)).save(disk / "a.png"),
    lambda: pd.DataFrame({"a": range(10**6)}).to_csv(disk / "a.csv"),
    lambda: (disk / "a.json").write_text("a" * 10**7),
):
    try:
        write()
    except Exception as error:
        print(explain(error))
    for path in disk.iterdir():
        path.unlink()
"""


def test_whatever_finds_the_disk_full_says_so(tmp_path: Path) -> None:
    told = on_a_full_disk(WRITE, tmp_path / "disk").splitlines()
    assert len(told) == 4
    assert all("no room left on the disk" in line for line in told), told


SAVE_ON = """
import sys, torch
from pathlib import Path
from pvt_bench.training.checkpoint import save_checkpoint
folder, step = Path(sys.argv[1]), int(sys.argv[2])
while True:
    step += 1
    save_checkpoint(folder, step, {"step": step, "weight": torch.full((2_000_000,), step)})
    print(step, flush=True)
"""


def test_a_kill_in_the_middle_of_a_save_costs_that_save_alone(tmp_path: Path) -> None:
    """With temporary files on another file system, where a move would be a copy."""
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    at = 0
    for wait in (0.0, 0.004, 0.008):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_ON, str(tmp_path), str(at)],
            env=os.environ | {"TMPDIR": str(elsewhere)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        saved = [int(process.stdout.readline()) for _ in range(3)][-1]
        time.sleep(wait)
        process.kill()
        saved = max([saved, *map(int, process.communicate()[0].split())])
        state = load_newest(tmp_path)
        assert state is not None
        # The last save may have been complete when its line was not.
        assert saved <= state["step"] <= saved + 1
        assert state["weight"].eq(state["step"]).all()
        at = state["step"]


def test_a_pickle_payload_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    save_checkpoint(tmp_path, 1, {"step": 1, "payload": Payload()})
    with pytest.raises(InputError, match="step-00000001"):
        load_newest(tmp_path)
    assert not (tmp_path / "owned").exists()
