"""What one task does: for every kind of run, which runs a request means, and the code that executes one of them.

`jobs.train`, `jobs.lr_sweep`, `jobs.grid` and `jobs.evaluate` each have

    runs(config, ...) -> Request                            on the login node, without torch
    execute(run, should_stop, reporter) -> Outcome          on the compute node
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from src.attempts import Execute
from src.config import Config
from src.errors import RunError
from src.sweeps import Request

KINDS = ("train", "lr_sweep", "grid", "evaluate")


def request_of(kind: str, config: Config, **options: Any) -> Request:
    """What a command of this kind asks for. Raises RelayError where the configuration does not allow it."""
    request: Request = import_module(f"jobs.{kind}").runs(config, **options)
    return request


def executor_of(kind: str) -> Execute:
    """The function that executes a run of this kind. Raises RunError for a kind that there is none of."""
    if kind not in KINDS:
        raise RunError(f"kind {kind!r} of a sweep is unknown; known: {', '.join(KINDS)}")
    execute: Execute = import_module(f"jobs.{kind}").execute
    return execute
