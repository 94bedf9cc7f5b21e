"""Options of `python -m pvt_bench.report`, and how they are typed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pvt_bench.commands import read_words
from pvt_bench.config.schema import Tracking
from pvt_bench.errors import InputError, nearest

FORMATS = ("md", "csv", "tex", "html", "png", "svg")


@dataclass
class Options:
    """What a report shows, and where it is written.

    results_dir: holds the records, and takes the report in `tables/`.
    tracking: `tracking.uri` names an MLflow store to read in place of the records.
    table: a published table, whose layout is taken; without it every table that the runs make.
    published: published numbers to show next to the runs, in a table without layout.
    where: conditions, all of which a run meets: `model.name=pvt_*`, `seed!=3`, `AP>40`.
    rows: keys whose values make a row; by default the model and what differs within one.
    columns: figures (`gflops`, `AP`), metrics (`val/AP`) or keys (`schedule.lr`).
    by: keys whose values make sections of a table.
    sort: columns or keys, a minus in front for falling values; by default GFLOPs.
    mixed: let runs of different datasets, schedules or protocols share a table.
    check: exit with 1 if a measured figure misses the published one.
    tolerance: points by which a score may differ; by default the table's.
    formats: files to write.
    name: name of the files; by default the table's, or report.
    output_dir: their directory; by default `results_dir/tables`.
    """

    results_dir: str = "results"
    tracking: Tracking = field(default_factory=Tracking)
    table: str | None = None
    published: str | None = None
    where: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    by: list[str] = field(default_factory=list)
    sort: list[str] = field(default_factory=list)
    mixed: bool = False
    check: bool = False
    tolerance: float | None = None
    formats: list[str] = field(default_factory=lambda: list(FORMATS))
    name: str | None = None
    output_dir: str | None = None


# Typed with commas between the parts.
LISTS = ("rows", "columns", "by", "sort", "formats")
# Taken as they are typed: a path may hold what YAML reads otherwise.
TEXTS = ("results_dir", "tracking.uri", "output_dir")
# Decided by the layout of a published table.
FREE_ONLY = ("rows", "columns", "by", "sort", "mixed")


def parse(words: Sequence[str]) -> Options:
    """Parse a command line; lists are typed as `AP,AP50`, conditions one by one.

    Raises:
        InputError, or an error of OmegaConf: an unknown option or an invalid value.
    """
    options: DictConfig = OmegaConf.structured(Options)
    options.results_dir = os.environ.get("PVT_BENCH_RESULTS") or options.results_dir
    keys = [*(each.name for each in fields(Options)), "tracking.uri"]
    for key, text in read_words(words, keys):
        OmegaConf.update(options, key, _value(options, key, text))
    found: Any = OmegaConf.to_object(options)
    _check(found)
    return found


def _value(options: DictConfig, key: str, text: str) -> object:
    if key == "where":
        return [*options.where, text]
    if key in LISTS:
        return [part.strip() for part in text.strip("[]").split(",") if part.strip()]
    if key in TEXTS:
        return None if text == "null" else text
    return OmegaConf.from_dotlist([f"value={text}"]).value


def _check(options: Options) -> None:
    for name in options.formats:
        if name not in FORMATS:
            raise InputError(f"formats={name}: unknown format. {nearest(name, FORMATS)}")
    if options.table and options.published:
        raise InputError("table= has its own published numbers: leave published= out.")
    if options.table:
        free = [name for name in FREE_ONLY if getattr(options, name)]
        if free:
            raise InputError(
                f"table={options.table} is a layout with its own rows and columns: leave "
                f"{' and '.join(f'{name}=' for name in free)} out, or leave table= out."
            )
    if options.check and not (options.table or options.published):
        raise InputError(
            "check=true compares with published numbers. Use table=NAME, for example "
            "table=imagenet, or published=NAME."
        )
