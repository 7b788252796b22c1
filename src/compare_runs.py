"""`python -m src.compare_runs --config C`: how each hyperparameter changes the best cell (M7 of the report)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from src.cli import ConfigOption, SetOption, overrides_of, run_command


def main(
    sweep: Annotated[
        str | None, typer.Argument(metavar="[SWEEP]", help="A grid; default: the newest one of this configuration.")
    ] = None,
    config: ConfigOption = "configs/config.yaml",
    set_: SetOption = None,
) -> None:
    """Compare the best cell of a grid with its neighbours, one figure for each axis."""
    from src import hints
    from src.config.loading import load_config
    from src.errors import RunError
    from src.requests import grid_request
    from src.results.artifacts import export_figure
    from src.results.comparison import compare_axes, draw_comparison
    from src.runs.names import find_named
    from src.runs.sweeps import sweeps, with_whole_manifests

    loaded = load_config(config, overrides_of(set_))
    paths = loaded.paths
    runs_dir = Path(paths.runs_dir)
    known = [find_named(runs_dir, sweep)[0]] if sweep else with_whole_manifests(sweeps(runs_dir))
    grids = [candidate for candidate in known if candidate.kind == "grid"]
    if not sweep and loaded.hparams.axes:
        key = grid_request(loaded).key
        # sort() is stable: grids of this configuration move to the end, and both groups stay in order of time.
        grids.sort(key=lambda candidate: candidate.meta()["key"] == key)
    for grid in reversed(grids):
        comparisons = compare_axes(grid)
        if comparisons:
            break
    else:
        raise RunError(
            f"{paths.runs_dir}: no grid{f' named {sweep}' if sweep else ''} has two finished cells; "
            f"to run one: {hints.command('hpc.launch', 'grid')}"
        )
    runs = grid.runs()
    done = sum(run.is_done() for run in runs)
    unfinished = f" (so far: {done} of {len(runs)} cells are done)" if done < len(runs) else ""
    print(f"{grid.name}: the best cell and those that differ from it in one value{unfinished}")
    for comparison in comparisons:
        axis = comparison.axis.rsplit(".", 1)[-1]
        path = draw_comparison(comparison, grid.figure(f"compare_{axis}"))
        print(f"{comparison.sentence()}\n  wrote {export_figure(path, grid, Path(paths.artifacts_dir))}")


if __name__ == "__main__":
    run_command(main)
