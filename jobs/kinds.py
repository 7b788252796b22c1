"""The table of kinds: how each is planned on the login node and executed on a compute node.

src/runs/kinds.py has the facts about the same kinds: their keys, costs and columns. Code that needs torch is imported
only when it is called, because the login node plans without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from src.config.schema import Config
from src.progress import Reporter, StopCheck
from src.requests import compare_request, evaluation_request, grid_request, lr_sweep_request, train_request
from src.runs.attempts import Execute, Outcome
from src.runs.kinds import kind_of
from src.runs.rundir import RunDir
from src.runs.sweeps import Request
from src.training.publish import find_rate_and_export, train_and_export, train_cell


@dataclass(frozen=True)
class Job:
    """The functions of one kind.

    `plan`: a configuration and the options of the kind's command -> the request for its runs. Imports no torch.
    `execute`: complete one run, or save its state when it should stop.
    `check`: raise RelayError, before any run is created, if it could only crash. May import torch.
    """

    plan: Callable[..., Request]
    execute: Execute
    check: Callable[[Config], None] | None = None


def _evaluate(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    from src.training.evaluation import evaluate

    return evaluate(run, should_stop, reporter)


def _check_checkpoint(config: Config) -> None:
    from src.training.pretrained import check_fits

    check_fits(config)


JOBS: Mapping[str, Job] = {
    "train": Job(train_request, train_and_export),
    "lr_sweep": Job(lr_sweep_request, find_rate_and_export),
    "grid": Job(grid_request, train_cell),
    "compare": Job(compare_request, train_cell),
    "evaluate": Job(evaluation_request, _evaluate, _check_checkpoint),
}


def request_of(kind: str, config: Config, **options: Any) -> Request:
    """The request of a command of this kind. Raises RelayError if the configuration does not allow it."""
    return _job_of(kind).plan(config, **options)


def check(request: Request) -> None:
    """Raise RelayError if the runs of a request could only crash. May import torch, which takes seconds."""
    job = _job_of(request.kind)
    if job.check:
        job.check(request.config)


def executor_of(kind: str) -> Execute:
    """The function that executes a run of this kind. Raises RunError for an unknown kind."""
    return _job_of(kind).execute


def _job_of(kind: str) -> Job:
    kind_of(kind)  # Raises RunError for an unknown kind.
    return JOBS[kind]
