"""The command: `python -m pvt_bench model=pvt_small task=coco_retinanet`.

Hydra's entry and the exit codes: 0 done, 1 failed, 2 something typed or given cannot be used,
130 interrupted.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pvt_bench.composing import add_dataset, check_named, explain, typed_experiment, why_dataset
from pvt_bench.config import Mode, config_dir, register

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


def main() -> None:
    """Run the command line and leave with its exit code."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    typed = sys.argv[1:]
    sys.argv[1:] = add_dataset(typed, os.environ)
    # Hydra would print its errors itself and exit with 1 whatever happened.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()
    codes = [0]
    outcomes: list[Any] = []

    @hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
    def cell(config: DictConfig) -> None:
        # Hydra has composed and checked everything by now; torch is first needed here.
        if config.mode in (Mode.train, Mode.test):
            # Read when torch is imported: threads that wait for work shall not take the cores of
            # the processes that read images (measured: 2.7 times the steps beside a busy one).
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from pvt_bench import describing
        from pvt_bench.run import run

        # Reported here, since Hydra writes about a job that raises and shows one of several.
        try:
            outcome = run(config, why_dataset(config.dataset.name, config.dataset.root, typed))
            sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
            describing.show(outcome, as_line=sweeping)
            outcomes.append(outcome)
        except Exception as error:
            codes.append(report(error, full))
            if codes[-1] == INTERRUPTED:
                raise KeyboardInterrupt from error

    try:
        check_named(typed, config_dir())
        cell()
        if outcomes and typed_experiment(typed):
            tabulate(outcomes, typed)
    except KeyboardInterrupt:
        codes.append(INTERRUPTED)
    except Exception as error:
        codes.append(report(error, full))
    sys.exit(max(codes))


def tabulate(outcomes: list[Any], typed: list[str]) -> None:
    """Write the table of a published table's cells beside the published numbers, and show it."""
    from omegaconf import OmegaConf

    from pvt_bench.report import tables
    from pvt_bench.screen import say

    config = outcomes[0].config
    _, name = typed_experiment(typed) or ("", "")
    if config.report is None:
        return
    layout: Any = OmegaConf.to_object(config.report)
    keys = ("model.name", *layout.keys)
    measured = [
        ({key: str(OmegaConf.select(each.config, key)) for key in keys}, comparable(each))
        for each in outcomes
    ]
    table = tables.compare(name, layout, measured)
    tables.show(table)
    for path in tables.write(table, Path(config.results_dir) / "tables"):
        say(f"table: {path}")


def comparable(outcome: Any) -> dict[str, float]:
    """What of a row can stand beside published numbers: scores on the task's own data only."""
    config = outcome.config
    own = config.dataset.name == config.task.name.partition("_")[0]
    scored = not own and config.mode in ("train", "test")
    return {
        name: value for name, value in outcome.row.items() if not scored or name.startswith("cost/")
    }


def report(error: Exception, full: bool) -> int:
    """Print an error as its reader can use it, and give the exit code."""
    message = explain(error)
    interrupted = type(error).__name__ == "Interrupted"
    if full or (message is None and not interrupted):
        traceback.print_exception(error)
    elif interrupted:
        print(f"{error}; the same command goes on from there", file=sys.stderr)
    else:
        print(f"error: {message}", file=sys.stderr)
    if interrupted:
        return INTERRUPTED
    return FAILED if message is None else REFUSED


if __name__ == "__main__":
    main()
