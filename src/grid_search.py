"""`python -m src.grid_search --config C [--refined]`: every cell of the grid, here and now, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from src.cli import ConfigOption, FreshOption, SetOption, overrides_of, run_command


def main(
    config: ConfigOption = "configs/config.yaml",
    refined: Annotated[
        bool, typer.Option("--refined", help="The narrower grid around the best cell of the first one.")
    ] = False,
    set_: SetOption = None,
    fresh: FreshOption = False,
) -> None:
    """Search the grid. Ctrl-C stops with the state saved; the same command goes on."""
    from src.config import load_config
    from src.plans import grid_request
    from src.sweeps import open_sweep

    loaded = load_config(config, overrides_of(set_))
    sweep, new = open_sweep(grid_request(loaded, refined=refined), fresh=fresh)

    from src.engine import train
    from src.foreground import run_sweep
    from src.results import collect

    run_sweep(sweep, train, new=new)
    collect(sweep, Path(loaded.paths.artifacts_dir))


if __name__ == "__main__":
    run_command(main)
