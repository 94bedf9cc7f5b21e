"""Differences from published figures: met, explained or missed."""

import math
from collections.abc import Sequence

from pvt_bench.config.schema import Gap, Report
from pvt_bench.report.tables.published import FIGURES, as_number
from pvt_bench.report.tables.rows import Row, Table

COSTS = ("params_m", "gflops")
# A published cost is met where ours prints to the same digit, or is this near: parameters in
# millions, GFLOPs as a share. A difference that is explained is closed within the share.
NEAR_PARAMS_M, NEAR_SHARE = 0.06, 0.01


def gap(layout: Report, row: Row) -> Gap | None:
    """Reason that the table gives for a row's difference, if any."""
    model = row.texts[1]
    return layout.gaps.get(f"{row.section}/{model}") or layout.gaps.get(model)


def agrees(figure: str, row: Row) -> bool:
    """Whether a row's cost is as published; true if either is missing."""
    printed = row.published.get(figure, "")
    measured, published = row.values[figure].mean, as_number(printed)
    if math.isnan(measured) or math.isnan(published):
        return True
    same = f"{measured:.{len(printed.partition('.')[2])}f}" == printed
    near = NEAR_PARAMS_M if figure == "params_m" else NEAR_SHARE * published
    return same or abs(measured - published) <= near


def is_closed(figure: str, row: Row, reason: Gap) -> bool:
    """Whether the amount that a reason adds closes the difference to the published cost."""
    published = as_number(row.published.get(figure, ""))
    missing = row.values[figure].mean + getattr(reason, figure) - published
    return agrees(figure, row) or abs(missing) <= NEAR_SHARE * published


def misses(layout: Report, table: Table, tolerance: float) -> tuple[list[str], int]:
    """Find figures that miss the published ones: a sentence on each, and the number compared.

    A cost misses where neither the table's precision nor a reason closes the difference, a score
    where it is more than `tolerance` points away, to either side. Speeds are of another device.
    """
    sentences, compared = [], 0
    for row in table.rows:
        for name, figure in table.figures.items():
            difference = row.difference(name)
            if math.isnan(difference) or figure.kind == "speed":
                continue
            compared += 1
            reason = gap(layout, row)
            if figure.kind == "score":
                # Both are decimals: 40.9 is within half a point of 40.4.
                missed = abs(difference) > tolerance + 1e-9
            else:
                missed = not (agrees(name, row) or (reason and is_closed(name, row, reason)))
            if missed:
                sentences.append(
                    f"{row.section}, {row.label}: {figure.heading} is "
                    f"{figure.show(row.values[name].mean)}, published {row.published[name]}."
                )
    return sentences, compared


def explain_gaps(layout: Report, rows: Sequence[Row]) -> list[str]:
    """Report costs that differ from the published ones, with the known reasons."""
    lines = []
    costs = [name for name in COSTS if name in layout.columns]
    for row in rows:
        reason, who = gap(layout, row), f"{row.section}, {row.texts[0]}:"
        open_ones = [
            FIGURES[name].heading
            for name in costs
            if not agrees(name, row) and not (reason and is_closed(name, row, reason))
        ]
        unmeasured = all(math.isnan(row.values[name].mean) for name in costs)
        if reason is not None and (unmeasured or not all(agrees(name, row) for name in costs)):
            lines.append(f"{who} {reason.why} {_sums(row, reason)}".rstrip())
        if open_ones:
            lines.append(f"{who} unexplained difference of {', '.join(open_ones)}.")
    return lines


def _sums(row: Row, reason: Gap) -> str:
    sums = []
    for name in COSTS:
        added = getattr(reason, name)
        if added and name in row.values and not math.isnan(row.values[name].mean):
            measured = row.values[name].mean
            sums.append(
                f"{FIGURES[name].heading}: {measured:.2f} {added:+.2f} = {measured + added:.2f}, "
                f"published {row.published[name]}."
            )
    return " ".join(sums)
