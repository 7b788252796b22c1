"""Waiting for runs that other processes execute."""

from __future__ import annotations

import time
from collections.abc import Callable

from relay.runs.rundir import RunDir


def wait_until(condition: Callable[[], object]) -> None:
    """Fails after two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def pid_of(run: RunDir) -> int:
    """The process of a run, once it trains."""
    wait_until(lambda: len(run.metrics()) > 2)
    return run.attempts()[-1].pid
