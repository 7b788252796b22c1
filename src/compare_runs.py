"""`python -m src.compare_runs --config C`: what each hyperparameter changed, around the best cell (M7)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from src.cli import ConfigOption, SetOption, overrides_of, run_command


def main(
    sweep: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A grid; default: the newest.")] = None,
    config: ConfigOption = "configs/config.yaml",
    set_: SetOption = None,
) -> None:
    """Overlay the best cell of a grid with its neighbours, one figure for each axis."""
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
    grids = [found for found in known if found.kind == "grid"]
    if not sweep and loaded.hparams.axes:
        key = grid_request(loaded).key
        # Stable: the newest grid of this configuration is the last one, and of none, the newest of all.
        grids.sort(key=lambda found: found.meta()["key"] == key)
    compared = next((c for found in reversed(grids) if (c := (found, compare_axes(found)))[1]), None)
    if compared is None:
        raise RunError(
            f"{paths.runs_dir}: no grid{f' named {sweep}' if sweep else ''} has two finished cells; "
            f"to run one: {hints.command('hpc.launch', 'grid')}"
        )
    found, comparisons = compared
    runs = found.runs()
    done = sum(run.is_done() for run in runs)
    unfinished = f" (so far: {done} of {len(runs)} cells are done)" if done < len(runs) else ""
    print(f"{found.name}: the best cell and those that differ from it in one value{unfinished}")
    for comparison in comparisons:
        axis = comparison.axis.rsplit(".", 1)[-1]
        path = draw_comparison(comparison, found.figure(f"compare_{axis}"))
        print(f"{comparison.sentence()}\n  wrote {export_figure(path, found, Path(paths.artifacts_dir))}")


if __name__ == "__main__":
    run_command(main)
