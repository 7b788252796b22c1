"""`python -m src.compare_runs --config C`: what did each change do? (M7 of the report)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from src.cli import ConfigOption, FreshOption, NewCodeOption, SetOption, overrides_of, run_command
from src.config.schema import Config


def main(
    sweep: Annotated[
        str | None,
        typer.Argument(metavar="[SWEEP]", help="A finished comparison or grid to show, instead of training anything."),
    ] = None,
    config: ConfigOption = "configs/config.yaml",
    set_: SetOption = None,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
) -> None:
    """Compare trainings: those of the config's section compare, or the best cell of a grid with its neighbours.

    With a section compare, the base training and each variant of it are trained in full, one after the other; a
    finished training of the same configuration is reused. Ctrl-C stops with the state saved. Without that section,
    nothing is trained: the best cell of the configuration's newest grid is compared with the cells that differ from it
    in one value.
    """
    from src.config.loading import load_config
    from src.runs.names import find_named

    loaded = load_config(config, overrides_of(set_))
    named = find_named(Path(loaded.paths.runs_dir), sweep)[0] if sweep else None
    if named and named.kind == "compare":
        from src.outcome import show_outcome

        show_outcome(named, loaded)
    elif loaded.compare.variants and not named:
        _train_variants(loaded, fresh=fresh, new_code=new_code)
    else:
        from src.neighbours import show_neighbours

        show_neighbours(loaded, named)


def _train_variants(config: Config, *, fresh: bool, new_code: bool) -> None:
    from src.requests import compare_request

    request = compare_request(config)

    # torch takes seconds to import: only once the request is known to be valid.
    from src.outcome import collect_all
    from src.runner import open_and_run
    from src.training.trainer import train

    open_and_run(request, train, lambda sweep: collect_all(sweep, config), fresh=fresh, new_code=new_code)


if __name__ == "__main__":
    run_command(main)
