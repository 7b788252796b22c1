"""`python -m hpc.aggregate`: tables and figures of sweeps, from their run directories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from src.cli import ConfigOption, SetOption, overrides_of, run_command


def main(
    name: Annotated[
        str | None, typer.Argument(metavar="[SWEEP]", help="A part of a sweep's name; default: every sweep.")
    ] = None,
    config: ConfigOption = "configs/config.yaml",
    set_: SetOption = None,
) -> None:
    """Write table.csv, table.md, table.parquet and the figure of each sweep, and show them."""
    from src.config.loading import load_config
    from src.results.table import collect
    from src.runs.names import find_named
    from src.runs.sweeps import sweeps, with_whole_manifests

    loaded = load_config(config, overrides_of(set_))
    runs_dir = Path(loaded.paths.runs_dir)
    chosen = [find_named(runs_dir, name)[0]] if name else list(with_whole_manifests(sweeps(runs_dir)))
    if not chosen:
        find_named(runs_dir, None)
    for sweep in chosen:
        collect(sweep, Path(loaded.paths.artifacts_dir))


if __name__ == "__main__":
    run_command(main)
