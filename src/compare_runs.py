"""`python -m src.compare_runs [SWEEP] --config C`: what did each change do? (M7 of the report)."""

from __future__ import annotations

from typing import Annotated

import typer

from hpc.commands.submit import HereOption, command_of
from hpc.works import WORKS
from relay.cli import ConfigOption, FreshOption, NewCodeOption, SetOption, run_command


def main(
    sweep: Annotated[
        str | None,
        typer.Argument(metavar="[SWEEP]", help="A finished comparison or grid to show, instead of training anything."),
    ] = None,
    config: ConfigOption = "configs/config.yaml",
    set_: SetOption = None,
    here: HereOption = False,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
) -> None:
    """Compare trainings: those of the config's section compare, or the best cell of a grid with its neighbours.

    With a section compare, the base training and each variant of it are trained in full, one after the other; a
    finished training of the same configuration is reused. Ctrl-C stops with the state saved. Without that section,
    nothing is trained: the best cell of the configuration's newest grid is compared with the cells that differ from it
    in one value.
    """
    if sweep is None:
        command_of(WORKS["compare"], "local")(config=config, set_=set_, here=here, fresh=fresh, new_code=new_code)
        return
    from relay.results.collection import answer_of_sweep
    from relay.runs.names import find_named
    from src.config.loading import load_config
    from src.outcomes.neighbours import show_neighbours
    from src.outcomes.showing import show_comparison

    loaded = load_config(config, set_ or ())
    named = find_named(loaded.paths.runs, sweep)[0]
    if named.kind == "compare":
        # An expectation that was edited since the runs were planned counts: it changes none of them.
        show_comparison(named, loaded.paths, answer_of_sweep(named), loaded.compare.variants)
    else:
        show_neighbours(loaded, named)


if __name__ == "__main__":
    run_command(main)
