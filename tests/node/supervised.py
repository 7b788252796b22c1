"""Runs of programs and commands, executed in the process of the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hpc.node.supervisor import supervise
from relay.progress import PlainReporter
from relay.projects.config import load_program
from relay.projects.request import train_request
from relay.runs.lifecycle import Outcome, attempt
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep

RunOf = Callable[..., RunDir]


def planned_run(file: Path) -> RunDir:
    """The run that `train` makes of a relay.yaml."""
    request = train_request(load_program(str(file)), str(file))
    return open_sweep(replace(request, data=request.prepare(False)), fresh=True)[0].runs()[0]


def execute(
    run: RunDir, stop: Callable[[], bool] = lambda: False, seconds_left: Callable[[], float] = lambda: 60.0
) -> Outcome:
    """One attempt at the run."""
    return attempt(run, lambda *given: supervise(*given, seconds_left), stop, PlainReporter())
