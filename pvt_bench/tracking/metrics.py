"""The numbers of a run on disk: one JSON line a point, appended as they come."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, SupportsFloat

from pvt_bench.errors import InputError
from pvt_bench.files import replace


class Point(NamedTuple):
    """Values that belong to one step, with the moment (Unix seconds) they were logged."""

    step: int
    time: float
    values: dict[str, float]


class MetricsFile:
    """`metrics.jsonl`. A last line that was cut short by a kill is ignored and cut off.

    token: the writer's lease, noted with each point. What a process wrote that had been taken over,
    in the middle of a write, stands behind a higher token and is ignored.
    """

    def __init__(self, path: Path, token: int = 0) -> None:
        self.path = path
        self.token = token
        self.rewrites = 0  # places in the file from before the last one mean nothing any more

    def append(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Write one point through to the operating system; a failed write leaves no trace.

        Raises:
            ValueError: a metric is called `step`, `time` or `token`.
            OSError: the file cannot be written, e.g. on a full disk.
        """
        if reserved := {"step", "time", "token"} & values.keys():
            raise ValueError(f"{reserved.pop()!r} is a field of every point, not a metric")
        point = Point(step, time.time(), {name: float(value) for name, value in values.items()})
        line = _encode(point, self.token)
        with self.path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(f"the disk took only a part of a line of {self.path.name}")
            except OSError:
                file.truncate(start)
                raise

    def read(self) -> Iterator[Point]:
        """All points in the order of logging."""
        return (point for point, _ in self.read_from(0))

    def read_from(self, start: int) -> Iterator[tuple[Point, int]]:
        """The points from byte `start` on, where a line begins, each with the byte behind it."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            end = start
            newest = 0
            for line in file:
                if not line.endswith(b"\n"):
                    return
                point, token = self._decode(line)
                end += len(line)
                # A line without values says from where on a writer has the file.
                if token >= newest and point.values:
                    yield point, end
                newest = max(newest, token)

    def tail(self, size: int = 1 << 14) -> list[Point]:
        """The last points, as many as whole lines fit into `size` bytes."""
        if not self.path.exists():
            return []
        start = max(0, self.path.stat().st_size - size)
        if start:
            with self.path.open("rb") as file:
                file.seek(start)
                start += len(file.readline())
        return [point for point, _ in self.read_from(start)]

    def _decode(self, line: bytes) -> tuple[Point, int]:
        try:
            return _decode(line)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            shown = line.decode(errors="replace").strip()[:60]
            raise InputError(
                f"{self.path} has a line that is not a point: {shown!r} ({error}). Expected one "
                'such as {"step": 1, "time": 0.0, "train/loss": 0.5}; mend or delete that line.'
            ) from error

    def repair(self) -> None:
        """Cut off a last line without an end."""
        if self.path.exists():
            size = self.path.stat().st_size
            whole = self.path.read_bytes().rfind(b"\n") + 1
            if whole < size:
                os.truncate(self.path, whole)

    def cut(self, step: int) -> None:
        """Drop the points after `step`, and of those that are there twice the first one.

        A step is there twice where two processes wrote the file: both went the same way.
        """
        points = {(p.step, *sorted(p.values)): p for p in self.read() if p.step <= step}
        lines = [_encode(point) for point in sorted(points.values(), key=lambda point: point.step)]
        lines += [_encode(Point(step, time.time(), {}), self.token)] if self.token else []
        self.rewrites += 1
        replace(self.path, b"".join(lines))


def _encode(point: Point, token: int = 0) -> bytes:
    values = {name: _plain(value) for name, value in point.values.items()}
    by = {"token": token} if token else {}
    line = {"step": point.step, "time": point.time, **by, **values}
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _plain(value: float) -> float | str:
    # JSON has no NaN and no infinities; as text, float() reads them back.
    return value if math.isfinite(value) else str(value)


def _decode(line: bytes) -> tuple[Point, int]:
    """The point of a line, and the token of who wrote it."""
    fields = json.loads(line)
    step, moment, token = fields.pop("step"), fields.pop("time"), fields.pop("token", 0)
    values = {name: float(value) for name, value in fields.items()}
    return Point(int(step), float(moment), values), int(token)
