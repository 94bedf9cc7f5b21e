"""The numbers of a record's points as MLflow takes them."""

import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pvt_bench.escaping import one_line
from pvt_bench.tracking.metrics import Point

METRIC_NAME = re.compile(r"[\w.\- :/]{1,250}")
# Figures of a run as a whole. At step 0 MLflow's page compares them as bars; at any other step it
# draws a line chart of one dot each.
WHOLE = re.compile(r"cost/.*|seconds")
# Costs that stay metrics where a table holds them all: its page begins with a chart of each.
MAIN_COSTS = ("cost/params_m", "cost/gflops", "cost/own_params_m", "cost/own_gflops")


class Value(NamedTuple):
    """One number of one metric, `time` in Unix seconds."""

    name: str
    step: int
    time: float
    value: float


def values_of(
    point: Point, costs_in_table: bool, leave_out: Callable[[str, str], None]
) -> Iterator[Value]:
    """Yield the values of a point that MLflow is to have as metrics.

    costs_in_table: only the main costs; leave_out: is told the name of each value that MLflow
    cannot hold, and why.
    """
    for name, value in point.values.items():
        if costs_in_table and name.startswith("cost/") and name not in MAIN_COSTS:
            continue
        if not METRIC_NAME.fullmatch(name):
            leave_out(one_line(name), "MLflow does not take this name")
        elif math.isinf(value):
            leave_out(one_line(name), "MLflow cannot hold an infinite value")
        else:
            step = 0 if WHOLE.fullmatch(name) else point.step
            yield Value(name, step, point.time, value)
