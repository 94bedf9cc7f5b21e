"""The files of a report, each written as a whole."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from pvt_bench.errors import InputError
from pvt_bench.files import replace


def write_files(directory: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write files by their names; the paths.

    Raises:
        InputError: the directory cannot be written. A file is then as it was before, or as it
            shall be, never in between.
    """
    paths = []
    with _writing(directory):
        for name, content in contents.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, content.encode() if isinstance(content, str) else content)
            paths.append(path)
    return paths


def check_writable(directory: Path) -> None:
    """Refuse a directory that cannot be written before any work is done for it.

    Raises:
        InputError: with what to type.
    """
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory):
            pass


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The report cannot be written to {directory} ({error.strerror}). Type "
            "output_dir=PATH of a directory that you can write to."
        ) from error
