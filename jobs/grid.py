"""`grid`: a short training of every cell of the grid, or of the narrower one around its best cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.images import DECIDING, UnfinishedOption, check_unfinished, load, preload
from jobs.program import request_of_program
from relay.progress import Reporter, StopCheck
from relay.projects.kind import is_program
from relay.runs.lifecycle import Outcome
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request
from relay.work import Work

if TYPE_CHECKING:
    from relay.config.sections import Paths
    from relay.results.answer import Answer


def request(
    config: str,
    set_: Sequence[str],
    *,
    refined: Annotated[
        int,
        typer.Option(
            "--refined",
            count=True,
            help="Run the narrower grid around the best cell of the first one; given twice, around the best of both.",
        ),
    ] = 0,
    unfinished: UnfinishedOption = False,
) -> Request:
    """All cells of the grid, or of the narrower one."""
    if is_program(config):
        return request_of_program(config, set_, "grid", refined=refined, unfinished=unfinished)
    from src.requests import grid_request

    check_unfinished("--refined", given=bool(refined), unfinished=unfinished)
    return grid_request(load(config, set_), refined=refined, unfinished=unfinished)


def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Execute the training of a cell, which does not replace artifacts/best.ckpt."""
    from src.training.trainer import train

    return train(run, should_stop, reporter)


def show(sweep: SweepDir, paths: Paths, answer: Answer) -> None:
    """Print what a narrower grid found against the first one."""
    from src.outcomes.showing import show_grid

    show_grid(sweep, paths, answer)


GRID = Work(
    "grid",
    "Train every cell of the grid as one SLURM array. The same command continues an unfinished grid.",
    request,
    execute,
    preload,
    show,
    DECIDING,
)
