"""A file or a folder holds its old content or its new one, and nothing unfinished stays."""

from pathlib import Path

import pytest

from pvt_bench.files import remove_unfinished, replace, replacing


def test_a_file_is_replaced(tmp_path: Path) -> None:
    replace(tmp_path / "a", b"old")
    replace(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def break_off(path: Path, error: type[BaseException], folder: bool) -> None:
    with replacing(path) as beside:
        if folder:
            beside.mkdir()
        (beside / "b" if folder else beside).write_bytes(b"ne")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    replace(tmp_path / "a", b"old")
    for name, folder in (("a", False), ("folder", True)):
        with pytest.raises(error):
            break_off(tmp_path / name, error, folder)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path: Path) -> None:
    with replacing(tmp_path / "folder") as beside:
        beside.mkdir()
        (beside / "b").write_text("text")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder/b").read_text() == "text"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    replace(tmp_path / "a", b"whole")
    (tmp_path / ".a.01234567.new").write_bytes(b"wh")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
