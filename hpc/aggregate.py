"""`python -m hpc.aggregate`: tables and figures of sweeps, from the files of their runs. It never asks SLURM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from src.cli import ConfigOption, SetOption, overrides_of, run_command


def main(
    name: Annotated[
        str | None,
        typer.Argument(metavar="SWEEP", help="A sweep; a unique part of the name is enough. Default: all sweeps."),
    ] = None,
    config: ConfigOption = "configs/config.yaml",
    set_: SetOption = None,
) -> None:
    """Collect the results of sweeps: print the table, and write table.csv, table.md, table.parquet and figures."""
    from src.config.loading import load_config
    from src.outcome import collect_all
    from src.runs.names import find_named
    from src.runs.sweeps import sweeps, with_whole_manifests

    loaded = load_config(config, overrides_of(set_))
    runs_dir = Path(loaded.paths.runs_dir)
    chosen = [find_named(runs_dir, name)[0]] if name else list(with_whole_manifests(sweeps(runs_dir)))
    if not chosen:
        find_named(runs_dir, None)  # Raises RunError, with the command that starts the first runs.
    for sweep in chosen:
        collect_all(sweep, loaded)


if __name__ == "__main__":
    run_command(main)
