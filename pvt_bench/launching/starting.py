"""From composed cells to their table: plan, claim, start, wait.

`python -m pvt_bench.launching.starting SWEEP RECORD ...` is the process that launcher=local leaves
behind with launcher.detach=true: it starts the cells of these records, and sees the sweep through.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from pvt_bench.config.launchers import LauncherName
from pvt_bench.config.schema import Config
from pvt_bench.errors import InputError
from pvt_bench.launching.cell import thaw
from pvt_bench.launching.preparing import Planned, claim, make_absolute, note_launches, plan
from pvt_bench.launching.sweep import FAILURES, Cell, State, Sweep, look, sweep_name
from pvt_bench.launching.watching import conclude, parents_of_cells
from pvt_bench.launching.work import Claimed, Local, RunHere, Work, begin, see_through
from pvt_bench.screen import say, warn
from pvt_bench.tracking.addresses import choose_uri, keep, sqlite_file, without_password
from pvt_bench.tracking.environment import launch_here
from pvt_bench.tracking.parent import adopt, open_parents


def launch(
    configs: Sequence[Config],
    swept: Sequence[str],
    title: str,
    typed: Sequence[str],
    first_lines: Callable[[Config], str],
    run_here: RunHere,
) -> list[tuple[Config, State]]:
    """Start the cells of a sweep and wait for them; how they stand at the end.

    configs: all with the same launcher; swept: the dotted keys that differ between them; title:
    the sweep's name for people; typed: the command's words; run_here: runs one cell in this
    process and reports what goes wrong.

    Raises:
        InputError: a cell cannot run; then none was started.
    """
    configs = [make_absolute(config) for config in configs]
    config = configs[0]
    uri = keep(choose_uri(config.tracking.uri, config.results_dir))
    typed = [without_password(word) for word in typed]
    _check_launcher(config, uri)
    for each in configs:
        # A cell may start where the environment is another.
        each.tracking.uri = uri
    planned = plan(configs, swept)
    places = [each.cell.place for each in planned]
    name = sweep_name(title, places)
    sweep = Sweep(name, Path(config.results_dir), typed, [], {}, uri, list(swept))
    sweep, work = _begin(sweep, planned, first_lines, run_here)
    say(f"sweep: {sweep.directory}")
    # Cells that were there before belong to the sweep in MLflow too.
    adopt(uri, sweep.results_dir, parents_of_cells(sweep))
    states = _detach(sweep, work) if config.launcher.detach else see_through(sweep, work)
    # One record may be that of several: a cost does not depend on the schedule, nor on the seed.
    by_place = {state.cell.place: state for state in states}
    return [(each.config, by_place[place]) for place, each in zip(places, planned, strict=True)]


def failed(states: Sequence[State]) -> bool:
    """Whether any cell ended otherwise than it should."""
    return any(state.word in FAILURES for state in states)


def _check_launcher(config: Config, uri: str) -> None:
    if config.launcher.detach and config.launcher.name == LauncherName.in_process:
        raise InputError(
            "launcher.detach=true: cells that run in this process end with it. Use launcher=local "
            "or launcher=slurm."
        )
    if config.launcher.name == LauncherName.slurm and sqlite_file(uri):
        warn(
            "the MLflow store is a sqlite file, which is for one host: with nodes on several, use "
            "tracking.uri=http://host:5000 of a tracking server"
        )


def _begin(
    sweep: Sweep,
    planned: Sequence[Planned],
    first_lines: Callable[[Config], str],
    run_here: RunHere,
) -> tuple[Sweep, Work]:
    """Claim the cells, and begin the work on those that have to run."""
    sweep.directory.parent.mkdir(parents=True, exist_ok=True)
    # Two launches of the same sweep: the second one finds each cell claimed.
    with FileLock(sweep.directory.with_name(f".{sweep.name}.lock")):
        experiments = {each.cell.experiment: each.cell.metrics for each in planned}
        parents = open_parents(
            sweep.uri, sweep.results_dir, sweep.name, experiments, sweep.typed, sweep.swept
        )
        sweep, to_do = _claim_all(replace(sweep, parents=parents), planned, first_lines)
        try:
            return sweep, begin(planned[0].config.launcher.name, sweep, to_do, run_here)
        except InputError:
            conclude(sweep, look(sweep))
            raise


def _claim_all(
    sweep: Sweep, planned: Sequence[Planned], first_lines: Callable[[Config], str]
) -> tuple[Sweep, list[Claimed]]:
    to_do: list[Claimed] = []
    cells: dict[str, Cell] = {}
    mine = launch_here()
    for each in planned:
        cell = each.cell
        if claim(each, sweep, mine, first_lines(each.config)) and cell.place not in cells:
            to_do.append(Claimed(each.record.resolve(), each.config, cell.name))
        cells.setdefault(cell.place, cell)
    sweep = replace(sweep, cells=list(cells.values()))
    sweep.write()
    return sweep, to_do


def _detach(sweep: Sweep, work: Work) -> list[State]:
    """Leave the cells to themselves; on this machine a process stays behind to start them."""
    if isinstance(work, Local):
        directories = [each.directory for each in work.to_do]
        command = [sys.executable, "-m", "pvt_bench.launching.starting", str(sweep.directory)]
        with (sweep.directory / "launcher.log").open("a") as log:
            stay = subprocess.Popen(
                [*command, *map(str, directories)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        note_launches(directories, [launch_here(stay.pid)] * len(directories))
    say(f"python -m pvt_bench.status sweep={sweep.name} shows how the cells stand")
    return look(sweep)


def main() -> None:
    """Start the cells that are typed on this machine, and see them through to their table."""
    directory, *directories = map(Path, sys.argv[1:])
    sweep = Sweep.read(directory)
    names = {sweep.record(cell).resolve(): cell.name for cell in sweep.cells}
    to_do = [Claimed(each, thaw(each)[0], names[each]) for each in directories]
    see_through(sweep, Local(sweep, to_do))


if __name__ == "__main__":
    main()
