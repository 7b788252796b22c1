"""A grid: a run for every cell, each a training, and how one is executed."""

from __future__ import annotations

from src.outcome import Outcome
from src.plans import grid_request as runs
from src.progress import Reporter, StopCheck
from src.rundir import RunDir

__all__ = ["execute", "runs"]


def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Bring the run to its end or to a stop; torch is imported here, on the node."""
    from src.engine import train

    return train(run, should_stop, reporter)
