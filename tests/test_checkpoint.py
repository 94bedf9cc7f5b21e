"""Checkpoints are whole or not there, and a damaged one is passed over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pvt_bench.errors import InputError
from pvt_bench.training.checkpoint import delete_checkpoints, load_newest, save_checkpoint


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


@pytest.mark.parametrize("damage", ["cut", "flip", "no digest"])
def test_a_damaged_one_is_named_and_passed_over(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
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


def test_a_full_disk_leaves_the_older_one_whole(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel refuses the write the same."""
    save(tmp_path, 1)
    code = f"""
import resource, signal, torch
from pathlib import Path
from pvt_bench.errors import InputError
from pvt_bench.training.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    save_checkpoint(Path({str(tmp_path)!r}), 2, {{"weight": torch.zeros(100_000)}})
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert "could not be written" in done.stdout
    assert "same command" in done.stdout
    assert [path.name for path in tmp_path.glob("*.partial")] == []
    state = load_newest(tmp_path)
    assert state is not None
    assert state["step"] == 1


def test_a_pickle_payload_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    save_checkpoint(tmp_path, 1, {"step": 1, "payload": Payload()})
    with pytest.raises(InputError, match="step-00000001"):
        load_newest(tmp_path)
    assert not (tmp_path / "owned").exists()
