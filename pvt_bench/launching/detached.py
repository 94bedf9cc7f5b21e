"""The process that launcher=local leaves behind with launcher.detach=true, to start the cells.

`python -m pvt_bench.launching.detached SWEEP RECORD ...`, the directories of a sweep and of those
of its records that are to be run.
"""

import sys
from pathlib import Path

from pvt_bench.launching.cell import thaw
from pvt_bench.launching.sweep import Sweep
from pvt_bench.launching.work import Claimed, Local, see_through


def main() -> None:
    """Start the cells and see them through to their table."""
    sweep, *directories = map(Path, sys.argv[1:])
    to_do = [Claimed(directory, thaw(directory)[0]) for directory in directories]
    see_through(Sweep.read(sweep), Local(Sweep.read(sweep), to_do))


if __name__ == "__main__":
    main()
