"""An evaluation of a checkpoint: its run, and how it is executed."""

from __future__ import annotations

from src.outcome import Outcome
from src.plans import evaluation_request as runs
from src.progress import Reporter, StopCheck
from src.rundir import RunDir

__all__ = ["execute", "runs"]


def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Bring the run to its end or to a stop; torch is imported here, on the node."""
    from src.evaluation import evaluate

    return evaluate(run, should_stop, reporter)
