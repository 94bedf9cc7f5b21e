"""The order of a table's rows."""

import math
import re
from collections.abc import Mapping, Sequence

from pvt_bench.report.tables.published import Figure
from pvt_bench.report.tables.rows import Row

DEFAULT = ("gflops",)
# Comparable parts: a number, or a text.
Key = tuple[tuple[bool, float, str], ...]


def in_order(
    rows: Sequence[Row], names: Sequence[str], texts: Sequence[str], figures: Mapping[str, Figure]
) -> list[Row]:
    """Rows in the order of columns or keys, within their sections; what is missing comes last.

    names: with a minus in front for falling values; by GFLOPs where there are none. What is equal
    in them is in the order of its texts, and what the table does not have orders nothing.
    """
    names = [name for name in names if name.removeprefix("-") in {*texts, *figures}]
    sections = list(dict.fromkeys(row.section for row in rows))
    ordered = sorted(rows, key=lambda row: [_natural(text) for text in row.texts])
    for name in reversed(names or [name for name in DEFAULT if name in figures]):
        key, falling = name.removeprefix("-"), name.startswith("-")
        keyed = [(_key(row, key, texts), row) for row in ordered]
        present = [(value, row) for value, row in keyed if value is not None]
        present.sort(key=lambda pair: pair[0], reverse=falling)
        ordered = [row for _, row in present] + [row for value, row in keyed if value is None]
    return sorted(ordered, key=lambda row: sections.index(row.section))


def _key(row: Row, name: str, texts: Sequence[str]) -> Key | None:
    if name not in texts:
        mean = row.values[name].mean
        return None if math.isnan(mean) else ((False, mean, ""),)
    text = row.texts[list(texts).index(name)]
    return _natural(text) if text else None


def _natural(text: str) -> Key:
    """A key that sorts numbers in a text by their value: resnet18 before resnet101."""
    parts = re.findall(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?|\D+", text)
    return tuple(
        (False, float(part), "") if part[0].isdigit() else (True, 0.0, part) for part in parts
    )
