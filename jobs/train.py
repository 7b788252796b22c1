"""`train`: one full training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.images import DECIDING, UnfinishedOption, check_unfinished, load, preload
from jobs.program import request_of_program, usual_request_of_program, verify_request_of_program
from relay.log import log
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
    overfit_small: Annotated[
        bool, typer.Option("--overfit-small", help="Memorize a few examples, to check the pipeline.")
    ] = False,
    max_epochs: Annotated[
        int | None, typer.Option("--max-epochs", metavar="N", help="Instead of train.epochs and overfit_epochs.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", metavar="N", help="Stop after N steps.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="S", help="Instead of train.seed.")] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Train with the hyperparameters of the grid's best cell.")
    ] = False,
    unfinished: UnfinishedOption = False,
    replace_best: Annotated[
        bool,
        typer.Option("--replace-best", help="Replace artifacts/best.ckpt by this training's, even if it is worse."),
    ] = False,
) -> Request:
    """The request of the training, or of its overfit test."""
    if is_program(config):
        images_only = {"overfit_small": overfit_small, "max_epochs": max_epochs, "max_steps": max_steps}
        images_only |= {"replace_best": replace_best}
        return request_of_program(config, set_, "train", seed=seed, best=best, unfinished=unfinished, **images_only)
    from src.artifacts import replace_best_by
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
    loaded = load(config, set_, **options)
    if best:
        loaded = with_best_cell(loaded, unfinished=unfinished)
    # A training that was done before does not publish its weights again by itself.
    return train_request(loaded, replace_best_by) if replace_best else train_request(loaded)


def usual_request(config: str, set_: Sequence[str]) -> Request:
    """What is requested most with this configuration: the grid, or the training if there is no axis to search."""
    if is_program(config):
        return usual_request_of_program(config, set_)
    from src.requests import grid_request, train_request

    loaded = load(config, set_)
    return grid_request(loaded) if loaded.hparams.axes else train_request(loaded)


def verify_request(config: str, set_: Sequence[str]) -> tuple[Request, int]:
    """The runs whose first one `verify` tries, and how many of its steps: of images a few small ones."""
    if is_program(config):
        return verify_request_of_program(config, set_)
    return usual_request(config, ["train.batch_size=4", *set_]), 6


def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Execute a full training, and export its best weights to artifacts/best.ckpt if they are the best so far."""
    from src.artifacts import export_best
    from src.training.trainer import train

    def publish(result: Mapping[str, Any]) -> None:
        log.info(f"{run.label}: {export_best(run, result)}")

    return train(run, should_stop, reporter, publish)


def show(sweep: SweepDir, paths: Paths, answer: Answer) -> None:
    """Print the gap and what is left to be done, and draw the curves."""
    from src.outcomes.showing import show_training

    show_training(sweep, paths, answer)


TRAIN = Work("train", "Train one model in full.", request, execute, preload, show, DECIDING)
