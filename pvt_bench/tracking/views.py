"""Views that MLflow's page offers above an experiment's runs: which charts come first.

By itself the page sorts its sections by name, costs before curves, and begins its parallel
coordinates with the first parameters of the alphabet.
"""

import json
import time
from collections.abc import Mapping, Sequence

# An experiment's tags with it hold its views; the page takes no more than 40.
VIEW_TAG = "mlflow.sharedViewState."
MOST_VIEWS = 30
LONGEST = 5000
FIRST_VIEW = "pvt-bench-curves"
# Sections of charts by the beginning of their metrics' names: of trainings and tests, in order, and
# those that are folded at first.
SECTIONS = ("train", "val", "Model metrics", "cost", "System metrics")
FOLDED = ("cost", "System metrics")
# The section of a sweep's own chart.
SWEPT = "what was swept"
# Of a swept group of files, the parameter that tells its choices apart.
NAMES = {"model": "model.name", "dataset": "dataset.name", "schedule": "schedule.name"}
ALONE = ("seed", "weights", "mode")


def curves_view(metrics: Sequence[str]) -> dict[str, str]:
    """A tag with the view of all single runs that begins with curves and scores.

    metrics: those that the list of runs shows.
    """
    single = {"searchFilter": "tags.mode LIKE '%'"}
    state = single | _order(metrics) | _columns([], metrics) | _charts([], metrics)
    return _tag(FIRST_VIEW, "curves and scores", state)


def sweep_view(
    name: str, parent: str, swept: Sequence[str], metrics: Sequence[str]
) -> dict[str, str]:
    """A tag with the view of a sweep's cells that begins with what was swept.

    parent: id of the run that holds them; swept: dotted keys; metrics: the main ones first.
    """
    params = [NAMES.get(key, key) for key in swept]
    params = [key for key in params if "." in key or key in ALONE]
    card = {
        "type": "PARALLEL", "uuid": f"{parent}-swept", "metricSectionId": _section(SWEPT),
        "runsCountToCompare": 10, "deleted": False, "isGenerated": False, "showAllRuns": True,
        "selectedParams": params, "selectedMetrics": list(metrics[:1]),
    }  # fmt: skip
    mine = {"searchFilter": f"tags.`mlflow.parentRunId` = '{parent}'"}
    state = mine | _order(metrics) | _columns(params, metrics) | _charts([card], metrics)
    return _tag(parent, name, state)


def _tag(identity: str, name: str, state: Mapping[str, object]) -> dict[str, str]:
    """The tag of a view; none where MLflow would not take its value."""
    view = {"name": name, "createdAt": round(time.time() * 1000), "state": json.dumps(state)}
    text = json.dumps(view)
    return {f"{VIEW_TAG}{identity}": text} if len(text) <= LONGEST else {}


def _order(metrics: Sequence[str]) -> dict[str, object]:
    """The best runs first. Where the newest are first, the page hides cells under their sweep."""
    if not metrics:
        return {}
    return {
        "orderByKey": f"metrics.`{metrics[0]}`",
        "orderByAsc": not metrics[0].startswith("val/"),
    }


def _columns(params: Sequence[str], metrics: Sequence[str]) -> dict[str, object]:
    # Of many scores one is enough: the page shows all metrics in front of the parameters.
    few = [name for name in metrics if name == metrics[0] or not name.startswith("val/")]
    named = [*(f"params.`{name}`" for name in params), *(f"metrics.`{name}`" for name in few)]
    return {"selectedColumns": [*named, "attributes.`Source`"]}


def _charts(cards: Sequence[Mapping[str, object]], metrics: Sequence[str]) -> dict[str, object]:
    """Charts and sections; for each metric without a card the page adds its own."""
    # A run that is no training has one kind of metrics.
    alone = [name.partition("/")[0] for name in metrics[:1] if not name.startswith("val/")]
    names = alone or SECTIONS
    sections = [
        {
            "uuid": _section(name), "name": name, "display": bool(alone) or name not in FOLDED,
            "isReordered": True, "deleted": False, "isGenerated": False,
        }
        for name in ([SWEPT, *names] if cards else names)
    ]  # fmt: skip
    return {
        "compareRunCharts": list(cards), "compareRunSections": sections,
        "isAccordionReordered": True,
    }  # fmt: skip


def _section(name: str) -> str:
    return f"section-{name.replace(' ', '-')}"
