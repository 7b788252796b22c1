"""The best cell of a grid and its neighbours: the cells that differ from it in one value."""

from __future__ import annotations

from pathlib import Path

from relay import hints
from relay.errors import RunError
from relay.results.collection import answer_of_sweep
from relay.runs.exports import export_figure
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import sweeps, with_whole_manifests
from src.config.schema import Config
from src.outcomes.comparison import compare_axes, draw_comparison
from src.requests import best_cell, grid_request


def show_neighbours(config: Config, named: SweepDir | None) -> None:
    """Compare the best cell of a grid with its neighbours, one figure for each axis.

    The grid is `named`, or the newest one of the configuration, or the newest of all. Raises RunError if none has two
    finished cells.
    """
    paths = config.paths
    known = [named] if named else with_whole_manifests(sweeps(Path(paths.runs_dir)))
    grids = [candidate for candidate in known if candidate.kind == "grid"]
    if not named and config.hparams.axes:
        key = grid_request(config).key
        # sort() is stable: grids of this configuration move to the end, and both groups stay in order of time.
        grids.sort(key=lambda candidate: candidate.meta()["key"] == key)
    for grid in reversed(grids):
        comparisons = compare_axes(grid, answer_of_sweep(grid))
        if comparisons:
            break
    else:
        if named:
            best_cell(named)  # Raises RunError if its cells are damaged.
        raise RunError(
            f"{paths.runs_dir}: no grid{f' named {named.name}' if named else ''} has two finished cells; "
            f"to run one: {hints.command('hpc.launch', 'grid')}"
        )
    runs = grid.runs()
    done = sum(run.is_done() for run in runs)
    unfinished = f" (so far: {done} of {len(runs)} cells are done)" if done < len(runs) else ""
    print(f"{grid.name}: the best cell and those that differ from it in one value{unfinished}")
    for comparison in comparisons:
        print(comparison.sentence())
        path = draw_comparison(comparison, grid.figure(f"compare_{comparison.axis}"))
        if path:
            print(f"  wrote {export_figure(path, grid, Path(paths.artifacts_dir))}")
