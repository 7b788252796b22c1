"""What can be run: one file per kind of work, with one record each, and the table of them.

Nothing here imports `src` before it is called: the engine lists and executes any work without the others.
"""

import relay.installed  # noqa: F401
from jobs.compare import COMPARE
from jobs.evaluate import EVALUATE
from jobs.grid import GRID
from jobs.lr_sweep import LR_SWEEP
from jobs.pipeline import PIPELINE
from jobs.program import PROGRAM
from jobs.train import TRAIN, usual_request, verify_request
from relay.work import Work

__all__ = ["PIPELINE", "WORKS", "usual_request", "verify_request"]

WORKS: dict[str, Work] = {work.name: work for work in (TRAIN, LR_SWEEP, GRID, COMPARE, EVALUATE, PROGRAM)}
