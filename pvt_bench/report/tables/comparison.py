"""Tables of comparable runs without a published layout; seeds share a row."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pvt_bench.errors import InputError, nearest
from pvt_bench.report.options import Options
from pvt_bench.report.sources.runs import Runs
from pvt_bench.report.tables.filling import counterpart, each_setting
from pvt_bench.report.tables.groups import Found, Group, Run, by_network, find_origins, group
from pvt_bench.report.tables.layouts import Layout, changed_model, load_layout
from pvt_bench.report.tables.notes import explain_protocol, explain_rows, title_of, unfinished
from pvt_bench.report.tables.protocols import Block, Prepared, divide, prepare
from pvt_bench.report.tables.published import FIGURES, Figure
from pvt_bench.report.tables.rows import Origin, Row, Table, Value, joined
from pvt_bench.report.tables.selection import check_keys, figure_of

# Comparable parts: a number, or a text.
Key = tuple[tuple[bool, float, str], ...]
# In the order of their tables.
MODES = ("train", "test", "cost", "speed")


def build_tables(runs: Runs, options: Options, name: str, command: str) -> list[Table]:
    """Build the tables of the runs: one per protocol, or a single one if `options.mixed`.

    Raises:
        InputError: an option names an unknown column or key.
    """
    check_keys(options.rows, runs, "rows")
    check_keys(options.by, runs, "by")
    layout = load_layout(options.published) if options.published else None
    prepared = prepare(runs)
    comparison = Comparison(runs, options, prepared, find_origins(prepared.table), layout)
    blocks = divide(prepared, options.rows, options.mixed)
    tables = [comparison.table(block, name, command) for block in blocks]
    known = {key for table in tables for key in (*table.texts, *table.figures)}
    for name in options.sort:
        if (key := name.removeprefix("-")) not in known:
            raise InputError(f"sort={name}: no table has that column. {nearest(key, known)}")
    tables.sort(key=lambda table: (MODES.index(table.protocol.get("mode", MODES[0])), table.title))
    return _told_apart(tables)


@dataclass(frozen=True)
class Comparison:
    """Sources of the tables of one report."""

    runs: Runs
    options: Options
    prepared: Prepared
    origins: Mapping[Run, Origin]
    layout: Layout | None

    def table(self, block: Block, name: str, command: str) -> Table:
        """Build the table of a block."""
        by = self.options.by
        keys = [key for key in block.keys if key not in by]
        figures, shown = self._columns(block)
        texts = [*keys, *(key for key in shown if key not in keys)]
        rows = list(self._rows(block, keys, texts[len(keys) :], figures))
        return Table(
            name,
            title_of(block.protocol),
            command,
            {key: heading(key, texts) for key in texts},
            figures,
            in_order(rows, self.options.sort, texts, figures),
            [name for name in figures if any(row.published.get(name) for row in rows)],
            block.protocol,
            [
                *explain_protocol(block.protocol, figures, block.joined, rows),
                *explain_rows(block.runs, [*by, *texts], self.prepared, self.options.mixed),
            ],
            [*self._changed(block.runs, texts), *unfinished(rows)],
        )

    def _columns(self, block: Block) -> tuple[dict[str, Figure], list[str]]:
        """Figures, and further keys that are shown though they do not tell rows apart."""
        if typed := self.options.columns:
            shown = [name for name in typed if name in self.runs.params]
            return {n: figure_of(n, self.runs) for n in typed if n not in shown}, shown
        near = block.joined[block.joined["network"].isin(block.runs["network"])]
        measured = {
            metric for runs in (block.runs, near) for metric in runs.columns[runs.notna().any()]
        }
        return {name: each for name, each in FIGURES.items() if each.metric in measured}, []

    def _rows(
        self, block: Block, keys: Sequence[str], shown: Sequence[str], figures: Mapping[str, Figure]
    ) -> Iterator[Row]:
        by = self.options.by
        found = {
            key: value
            for kind in ("cost", "speed")
            for key, value in by_network(block.joined, kind, figures).items()
        }
        networks = block.runs["network"].to_dict()
        texts = {key: block.runs[key].dropna().astype(str).to_dict() for key in shown}
        for each in group(block.runs, [*by, *keys], figures):
            values, sources = _completed(each, networks, found)
            more = [joined(texts[key].get(run, "") for run in each.members) for key in shown]
            named = zip(by, each.texts, strict=False)
            yield Row(
                (*each.texts[len(by) :], *more),
                values,
                ", ".join(f"{key} {text}" for key, text in named),
                self._published(each.members[0]),
                tuple(sorted(self.origins[run] for run in sources)),
            )

    def _changed(self, runs: pd.DataFrame, shown: Sequence[str]) -> list[str]:
        """Name models that differ from their files in settings that no column shows."""
        keys = ["task.name", *(key for key in self.runs.params if key.startswith("model."))]
        apart = runs.drop_duplicates(keys)
        sentences = []
        for _, what in each_setting(apart, self.runs.params):
            changes = {k: text for k, text in changed_model(what).items() if k not in shown}
            if changes:
                words = ", ".join(f"{key}={text}" for key, text in changes.items())
                sentences.append(f"{what['model.name']} differs from its file: {words}.")
        return list(dict.fromkeys(sentences))

    def _published(self, run: Run) -> dict[str, str]:
        if self.layout is None:
            return {}
        ((_, what),) = each_setting(self.prepared.table.loc[[run]], self.runs.params)
        return counterpart(self.layout, what, self.origins[run].kind)


def heading(key: str, others: Sequence[str]) -> str:
    """Last part of a dotted key; all of it if another key ends alike."""
    first, _, last = key.rpartition(".")
    if last == "name":
        return first
    alike = [other for other in others if other.rpartition(".")[2] == last]
    return last if len(alike) == 1 else key


def _completed(
    each: Group, networks: Mapping[Run, int], found: Mapping[tuple[int, str], Found]
) -> tuple[dict[str, Value], list[Run]]:
    """Values of a group, completed by other runs of its network, and all runs behind them."""
    values, runs = dict(each.values), [*each.members]
    own = {networks[run] for run in each.members}
    for name, value in each.values.items():
        other = found.get((min(own), name)) if len(own) == 1 and value.n == 0 else None
        if other is not None:
            values[name] = other.value
            runs.append(other.run)
    return values, list(dict.fromkeys(runs))


def _told_apart(tables: Sequence[Table]) -> list[Table]:
    """Add to equal titles what their tables differ in."""
    titles = Counter(table.title for table in tables)
    apart = []
    for table in tables:
        alike = [other.protocol for other in tables if other.title == table.title]
        keys = [key for key in table.protocol if len({p.get(key) for p in alike}) > 1]
        words = ", ".join(f"{key}={table.protocol[key]}" for key in keys)
        several = titles[table.title] > 1 and words
        apart.append(replace(table, title=f"{table.title} ({words})") if several else table)
    return apart


def in_order(
    rows: Sequence[Row], names: Sequence[str], texts: Sequence[str], figures: Mapping[str, Figure]
) -> list[Row]:
    """Sort rows by columns or keys within their sections; missing values come last.

    names: with a minus in front for falling values; by GFLOPs where there are none. What is equal
    in them is in the order of its texts, and what the table does not have orders nothing.
    """
    names = [name for name in names if name.removeprefix("-") in {*texts, *figures}]
    sections = list(dict.fromkeys(row.section for row in rows))
    ordered = sorted(rows, key=lambda row: [_natural(text) for text in row.texts])
    for name in reversed(names or [name for name in figures if name == "gflops"]):
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
    """Sorting key by which numbers in a text count by value: resnet18 before resnet101."""
    parts = re.findall(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?|\D+", text)
    return tuple(
        (False, float(part), "") if part[0].isdigit() else (True, 0.0, part) for part in parts
    )
