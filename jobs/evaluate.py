"""`evaluate`: a checkpoint, measured on the val or test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.images import DECIDING, load, preload
from relay.progress import Reporter, StopCheck
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
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="FILE", help="The weights to evaluate. Default: artifacts/best.ckpt."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="val|test", help="The examples to evaluate on. Default: the config's evaluation.split."
        ),
    ] = None,
) -> Request:
    """One evaluation, of the file as it is now."""
    from src.requests import evaluation_request

    return evaluation_request(load(config, set_, evaluation__checkpoint=checkpoint, evaluation__split=split))


def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Measure the checkpoint, and write its tables and figures."""
    from src.evaluation.evaluator import evaluate

    return evaluate(run, should_stop, reporter)


def show(sweep: SweepDir, paths: Paths, answer: Answer) -> None:
    """Print the metrics with their intervals and the gap to val, and copy tables and figures."""
    from src.evaluation.files import show_evaluation

    show_evaluation(sweep, paths)


EVALUATE = Work(
    "evaluate",
    "Evaluate a checkpoint on the val or test split.",
    request,
    execute,
    preload,
    show,
    (*DECIDING, "src/evaluation/", "relay/results/statistics/"),
)
