import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from pvt_bench.datasets import index as index_module
from pvt_bench.datasets.index import Index, load_index

ARRAYS = {
    "numbers": np.arange(12, dtype=np.int64).reshape(3, 4),
    "empty": np.empty((0, 4), np.float32),
    "flags": np.array([True, False, True]),
    "names": np.array([b"one.jpg", "zwölf.jpg".encode(), b""]),
}
FACTS = {"classes": ["a", "b"], "dropped": {"crowds": 3}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "index"


class Builder:
    """Builds the index above and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return Index(dict(ARRAYS), dict(FACTS))


def _load(folder, build, stamp=1, source="data/file.json", variant=""):
    return load_index(folder, Path(source), {"stamp": stamp}, build, variant)


def _check(index):
    assert index.facts == FACTS
    assert index.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert index.arrays[name].dtype == array.dtype
        assert np.array_equal(index.arrays[name], array)


def _file(folder):
    (file,) = folder.glob("*.safetensors")
    return file


def test_what_was_built_is_kept(folder, capsys):
    build = Builder()
    for _ in range(3):
        _check(_load(folder, build))
    assert build.calls == 1
    assert capsys.readouterr().out.count("for the first time") == 1
    assert _file(folder).stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


def _umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_nothing_is_kept_without_a_folder(tmp_path):
    build = Builder()
    for _ in range(2):
        _check(_load(None, build))
    assert build.calls == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", [{"stamp": 2}, {"source": "else/file.json"}, {"variant": "x"}])
def test_what_is_not_the_same_is_built_anew(folder, other):
    build = Builder()
    _load(folder, build)
    _load(folder, build, **other)
    assert build.calls == 2
    _load(folder, build, **other)
    assert build.calls == 2


def test_another_version_is_built_anew(folder, monkeypatch):
    build = Builder()
    _load(folder, build)
    monkeypatch.setattr(index_module, "VERSION", index_module.VERSION + 1)
    _load(folder, build)
    assert build.calls == 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_built_anew(folder, share, capsys):
    build = Builder()
    _load(folder, build)
    content = _file(folder).read_bytes()
    _file(folder).write_bytes(content[: int(len(content) * share)])
    _check(_load(folder, build))
    assert build.calls == 2
    assert "is damaged" in capsys.readouterr().out
    _check(_load(folder, build))
    assert build.calls == 2


def test_a_changed_byte_is_found(folder, capsys):
    build = Builder()
    _load(folder, build)
    content = bytearray(_file(folder).read_bytes())
    content[content.index(b"one.jpg")] ^= 1
    _file(folder).write_bytes(bytes(content))
    _check(_load(folder, build))
    assert build.calls == 2
    assert "checksum" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, capsys):
    """A file stands in the way: permissions do not stop a superuser."""
    build = Builder()
    (tmp_path / "file").touch()
    _check(_load(tmp_path / "file" / "index", build))
    assert "cannot be written" in capsys.readouterr().out


def test_a_full_disk_is_no_obstacle(folder, monkeypatch, capsys):
    def write_bytes(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    _check(_load(folder, Builder()))
    assert "No space left" in capsys.readouterr().out
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_a_folder_that_can_only_be_read_serves(folder, monkeypatch):
    build = Builder()
    _load(folder, build)
    monkeypatch.setattr(index_module, "FileLock", None)
    _check(_load(folder, build))
    assert build.calls == 1


def test_one_builds_and_the_others_wait(folder):
    build = Builder()
    with ThreadPoolExecutor(4) as pool:
        for index in pool.map(lambda _: _load(folder, build), range(8)):
            _check(index)
    assert build.calls == 1


def _sum(numbers):
    return int(numbers.sum()), _private_kilobytes()


def _private_kilobytes():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_processes_share_what_is_kept(folder):
    big = Index({"numbers": np.ones(16_000_000)}, {})
    kept = _load(folder, lambda: big).arrays["numbers"]
    global shared
    shared = kept
    with get_context("fork").Pool(1) as pool:
        before = pool.apply(_private_kilobytes)
        total, after = pool.apply(_sum_shared)
    assert total == 16_000_000
    assert after - before < 20_000  # of 128,000


def _sum_shared():
    return _sum(shared)
