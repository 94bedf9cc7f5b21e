"""The command: `python -m pvt_bench model=pvt_small task=coco_retinanet`.

Hydra's entry and the exit codes: 0 done, 1 failed, 2 something typed or given cannot be used,
130 interrupted.
"""

import os
import sys
import traceback

import hydra
from omegaconf import DictConfig

from pvt_bench.composing import add_dataset, explain, why_dataset
from pvt_bench.config import config_dir, register


def main() -> None:
    """Run the command line and leave with its exit code."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    typed = sys.argv[1:]
    sys.argv[1:] = add_dataset(typed, os.environ)
    # Hydra would print its errors itself and exit with 1 whatever happened.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()

    @hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
    def cell(config: DictConfig) -> None:
        # Hydra has composed and checked everything by now; torch is first needed here.
        from pvt_bench.run import run

        run(config, why_dataset(config.dataset.name, config.dataset.root, typed))

    try:
        cell()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if full:
            traceback.print_exc()
        sys.exit(report(error, full))


def report(error: Exception, full: bool) -> int:
    """Print an error as its reader can use it, and give the exit code."""
    message = explain(error)
    if message is not None:
        if not full:
            print(f"error: {message}", file=sys.stderr)
        return 2
    if type(error).__name__ == "Interrupted":
        print(f"{error}; the same command goes on from there", file=sys.stderr)
        return 130
    if not full:
        traceback.print_exception(error)
    return 1


if __name__ == "__main__":
    main()
