"""Measure the time and memory that a report takes over an MLflow store of many runs.

    python benchmarks/report.py --runs 100 1000 10000 --folder /tmp/stores

Each store is a real sqlite file, made through MLflow's client: trainings of ten models with
different learning rates, five seeds each, with all their settings as parameters and 50 metrics, of
which the loss has a history. Making 10,000 runs takes ten to twenty minutes; an existing store is
reused. Then the command is run as a user types it: a table as Markdown, CSV and LaTeX, the page,
and the plots.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir

from pvt_bench.config.folders import config_dir
from pvt_bench.config.recipes import add_recipe
from pvt_bench.config.registry import register
from pvt_bench.config.schema import typed
from pvt_bench.screen import console, progress_bar, show_rows
from pvt_bench.tracking.reaching import quiet_and_quick

MODELS = (
    *("pvt_tiny", "pvt_small", "pvt_medium", "pvt_large", "pvt_v2_b2", "resnet18", "resnet50"),
    *("resnet101", "resnext101_32x4d", "swin_tiny_patch4_window7_224"),
)
SEEDS = 5
METRICS = 50
LOSSES = 10
FORMATS = {"tables": "md,csv,tex", "page": "html", "pictures": "png,svg"}


class Measured(NamedTuple):
    """seconds: from Enter to the end; peak: largest resident memory in GB (1e9 bytes)."""

    seconds: float
    peak: float


def main() -> None:
    """Make the stores that are missing, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--folder", type=Path, default=Path("stores"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows: list[list[str | float | None]] = []
    for runs in arguments.runs:
        store = arguments.folder.resolve() / f"{runs}.db"
        if not store.exists():
            # In another process: what it imports would count as memory of those it starts.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                pool.submit(make_store, store, runs).result()
        for name, formats in FORMATS.items():
            seconds, peak = measure(store, formats)
            size = store.stat().st_size / 1e6
            rows.append([f"{runs:,}", name, seconds, peak, size])
    console.width = 100
    show_rows("python -m pvt_bench.report", ["runs", "of", "s", "peak GB", "store MB"], rows)


def make_store(store: Path, runs: int) -> None:
    """Write the store, under another name until it is whole."""
    quiet_and_quick()
    from mlflow import MlflowClient
    from mlflow.entities import Param, RunTag

    from pvt_bench.tracking.store import RECORD_TAG

    unfinished = store.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    client = MlflowClient(tracking_uri=f"sqlite:///{unfinished}")
    experiment = client.create_experiment("coco_retinanet", artifact_location=str(store.parent))
    settings = {model: settings_of(model) for model in MODELS}
    with progress_bar(f"making {runs:,} runs", runs) as bar:
        for number in range(runs):
            model = MODELS[number % len(MODELS)]
            seed, study = number // len(MODELS) % SEEDS, number // len(MODELS) // SEEDS
            params = settings[model] | {"seed": seed, "schedule.lr": f"{1e-5 * (study + 1):.2e}"}
            identity = f"{number:010x}"
            tags = {RECORD_TAG: identity, "identity": identity, "host": "host", "device": "GPU"}
            created = client.create_run(experiment, run_name=f"{model} seed{seed}").info
            client.log_batch(
                created.run_id,
                params=[Param(key, str(value)) for key, value in params.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
                metrics=metrics_of(number),
            )
            client.set_terminated(created.run_id)
            bar.advance()
    unfinished.rename(store)


def settings_of(model: str) -> dict[str, Any]:
    """The parameters of a training, as the mirror logs them."""
    from pvt_bench.records import params

    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", add_recipe([f"model={model}", "task=coco_retinanet"]))
    return params(typed(config))


def metrics_of(number: int) -> list[Any]:
    """50 metrics, of which the loss and the images seen have several steps."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    scores = {
        name: 0.2 + (number * (place + 7) % 997) / 4000
        for place, name in enumerate(("AP", "AP50", "AP75", "APs", "APm", "APl"))
    }
    place = number % len(MODELS)
    last = {
        **{f"val/{name}": value for name, value in scores.items()},
        "cost/params_m": 20.0 + 5 * place,
        "cost/gflops": 150.0 + 20 * place,
        "seconds": 100.0 + number,
    }
    last |= {f"cost/part{each}_gflops": float(each) for each in range(METRICS - len(last) - 2)}
    points = [Metric(name, value, now, LOSSES) for name, value in last.items()]
    for step in range(1, LOSSES + 1):
        points.append(Metric("train/loss", 3 / step + number % 7, now, step))
        points.append(Metric("train/images_seen", 8.0 * step, now, step))
    return points


def measure(store: Path, formats: str) -> Measured:
    """Run the command on a store."""
    words = [f"tracking.uri=sqlite:///{store}", f"formats={formats}", "sort=-AP"]
    output = f"output_dir={store.parent / store.stem}"
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "pvt_bench.report", *words, output], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the report failed with exit code {process.returncode}")
    # Kilobytes on Linux, bytes on a Mac.
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return Measured(time.monotonic() - began, usage.ru_maxrss * unit / 1e9)


if __name__ == "__main__":
    main()
