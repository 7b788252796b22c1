"""`python -m src.grid_search --config C [--refined]`: runs every cell of the grid in this process, in order."""

from __future__ import annotations

from src.cli import (
    ConfigOption,
    FreshOption,
    NewCodeOption,
    RefinedOption,
    SetOption,
    UnfinishedOption,
    check_unfinished,
    overrides_of,
    run_command,
)


def main(
    config: ConfigOption = "configs/config.yaml",
    refined: RefinedOption = 0,
    unfinished: UnfinishedOption = False,
    set_: SetOption = None,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
) -> None:
    """Search the grid. Ctrl-C stops with the state saved; the same command continues it."""
    from src.config.loading import load_config
    from src.requests import grid_request

    check_unfinished("--refined", given=bool(refined), unfinished=unfinished)
    loaded = load_config(config, overrides_of(set_))
    request = grid_request(loaded, refined=refined, unfinished=unfinished)

    # torch takes seconds to import: only once the request is known to be valid.
    from src.outcome import collect_all
    from src.runner import open_and_run
    from src.training.trainer import train

    open_and_run(request, train, lambda sweep: collect_all(sweep, loaded), fresh=fresh, new_code=new_code)


if __name__ == "__main__":
    run_command(main)
