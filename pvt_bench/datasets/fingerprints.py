"""What a view is made of, as one digest: its labels, and the sizes and bytes of its files.

Of a large file a sample is read, so that the first look at a million images takes minutes. The
digest is kept in the index, and the files are read again only where a size or a time has changed.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pvt_bench.datasets.index import Index, load_index
from pvt_bench.errors import InputError
from pvt_bench.screen import progress_bar

BLOCK = 4096  # bytes
BLOCKS = 16  # of a larger file, evenly spaced, the first and the last of it among them
THREADS = 16  # reading waits for disks and networks, not for cores
CHUNK = 64  # files that a thread takes at a time
# Fewer files are read in a moment; looking up what was kept of them would take as long.
MANY = 10_000


def fingerprint(labels: str, folder: Path, files: Sequence[str], index: Path | None) -> str:
    """The SHA-256 of a view: of its `labels`, and of its `files` below `folder` in their order.

    It is the same wherever the files lie and whenever they were written.

    labels: a digest of everything else that the view is made of, the names of the files included.
    index: a folder that keeps the digest of the files, or None.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    content = _sample_all(folder, files, index)
    return hashlib.sha256(f"{labels} {content}".encode()).hexdigest()


def full_digest(files: Iterable[Path]) -> str:
    """The SHA-256 of every byte of `files`; one that cannot be read counts as empty."""
    whole = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as content:
                whole.update(hashlib.file_digest(content, "sha256").digest())
        except OSError:
            whole.update(hashlib.sha256().digest())
    return whole.hexdigest()


def file_stamp(path: Path) -> dict[str, int | str]:
    """What changes when a file does: its size, its times and a sample of its bytes.

    Size and time of the last change may be set to those of another file; the time at which its
    entry was changed (st_ctime) cannot be.
    """
    stat = path.stat()
    sample = _sample(path).rpartition(" ")[2]
    times = {"time": stat.st_mtime_ns, "changed": stat.st_ctime_ns}
    return {"size": stat.st_size, **times, "sample": sample}


def stat_digest(folder: Path, files: Sequence[str]) -> str:
    """What changes with names, sizes and times of `files` below `folder`."""
    names = hashlib.sha256(os.fsencode("\n".join(files))).hexdigest()
    return f"{names} {_combine(_stat, folder, files)}"


def _sample_all(folder: Path, files: Sequence[str], index: Path | None) -> str:
    """The digest of a sample of all files, from the index where none of them has changed."""
    if index is None or len(files) < MANY:
        return _combine(_sample, folder, files)
    stamp = {"files": stat_digest(folder, files)}

    def read() -> Index:
        with progress_bar(f"reading samples of {folder.name}", len(files)) as bar:
            return Index({}, {"content": _combine(_sample, folder, files, bar.advance)})

    content: str = load_index(index, folder, stamp, read, variant="content").facts["content"]
    return content


def _combine(
    look: Callable[[Path], str],
    folder: Path,
    files: Sequence[str],
    advance: Callable[[int], None] = lambda count: None,
) -> str:
    """One digest of what `look` tells of each file, asked for by threads."""
    digest = hashlib.sha256()
    parts = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    pool = ThreadPoolExecutor(THREADS)
    try:
        for found in pool.map(partial(_look_at, look, folder), parts):
            digest.update("\n".join([*found, ""]).encode())
            advance(len(found))
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}). `python -m pvt_bench.preflight` "
            "with the same task= and dataset= lists all faults of the data."
        ) from error
    finally:
        # Neither an error nor Ctrl-C waits for a million files.
        pool.shutdown(cancel_futures=True)
    return digest.hexdigest()


def _look_at(look: Callable[[Path], str], folder: Path, files: Sequence[str]) -> list[str]:
    return [look(folder / file) for file in files]


def _stat(path: Path) -> str:
    stat = os.stat(path)  # noqa: PTH116  # takes half the time of Path.stat
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _sample(path: Path) -> str:
    """The size of a file, and a digest of some of its bytes; of all where there are few."""
    digest = hashlib.blake2b(digest_size=16)
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        if size <= BLOCK * BLOCKS:
            digest.update(os.read(handle, size))
        else:
            for block in range(BLOCKS):
                digest.update(os.pread(handle, BLOCK, block * (size - BLOCK) // (BLOCKS - 1)))
    finally:
        os.close(handle)
    return f"{size} {digest.hexdigest()}"
