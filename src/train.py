"""`python -m src.train --config C`: runs one full training in this process."""

from __future__ import annotations

from typing import Annotated

import typer

from src.cli import (
    ConfigOption,
    FreshOption,
    NewCodeOption,
    ReplaceBestOption,
    SetOption,
    UnfinishedOption,
    check_unfinished,
    overrides_of,
    run_command,
)


def main(
    config: ConfigOption = "configs/config.yaml",
    overfit_small: Annotated[
        bool, typer.Option("--overfit-small", help="Memorize a few images, to check the pipeline.")
    ] = False,
    max_epochs: Annotated[
        int | None, typer.Option("--max-epochs", metavar="N", help="Instead of train.epochs and overfit_epochs.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", metavar="N", help="Stop after N steps.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="S", help="Instead of train.seed.")] = None,
    best: Annotated[bool, typer.Option("--best", help="Train the best cell of this configuration's grid.")] = False,
    unfinished: UnfinishedOption = False,
    replace_best: ReplaceBestOption = False,
    set_: SetOption = None,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
) -> None:
    """Train one configuration. Ctrl-C stops with the state saved; the same command continues it."""
    from src.config.loading import load_config
    from src.requests import train_request, with_best_cell

    check_unfinished("--best", given=best, unfinished=unfinished)
    # --max-epochs limits the overfit test, too, which has a number of epochs of its own.
    options = {
        "train__overfit_small": overfit_small,
        "train__epochs": max_epochs,
        "train__overfit_epochs": max_epochs,
        "train__max_steps": max_steps,
        "train__seed": seed,
        "checkpoint__replace_best": replace_best,
    }
    loaded = load_config(config, overrides_of(set_, **options))
    if best:
        loaded = with_best_cell(loaded, unfinished=unfinished)

    # torch takes seconds to import: only once the request is known to be valid.
    from src.outcome import show_outcome
    from src.results.overfit import report_overfit
    from src.results.table import read_table
    from src.results.table_files import print_table
    from src.runner import open_and_run
    from src.training.publish import replace_best_by, train_and_export

    sweep = open_and_run(train_request(loaded), train_and_export, fresh=fresh, new_code=new_code)
    print_table(read_table(sweep).ranked, sweep.name)
    show_outcome(sweep, loaded)
    if loaded.train.overfit_small:
        report_overfit(sweep)
    # A training that was done before does not publish its weights again by itself.
    if replace_best:
        replace_best_by(sweep)


if __name__ == "__main__":
    run_command(main)
