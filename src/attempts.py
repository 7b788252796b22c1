"""One attempt at a run: claimed, written down when it starts and when it ends, whatever it ends in."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from src.errors import RelayError
from src.files import replace_file
from src.outcome import Outcome
from src.progress import Reporter, StopCheck
from src.provenance import provenance
from src.rundir import RunDir
from src.yaml_file import json_text

Execute = Callable[[RunDir, StopCheck, Reporter], Outcome]


def attempt(
    run: RunDir,
    execute: Execute,
    should_stop: StopCheck,
    reporter: Reporter,
    *,
    job: str | None = None,
    claim_wait_s: float = 0,
    cause_of_stop: Callable[[], str] = lambda: "INTERRUPTED",
) -> Outcome:
    """Claim the run, execute it, and close the attempt with its cause.

    The cause is DONE, what `cause_of_stop` says when a stop was asked for, or CRASHED. Raises RunError where another
    process has the run, and what `execute` raises.
    """
    with run.claim(claim_wait_s):
        return _recorded(run, execute, should_stop, reporter, job, cause_of_stop)


def _recorded(
    run: RunDir,
    execute: Execute,
    should_stop: StopCheck,
    reporter: Reporter,
    job: str | None,
    cause_of_stop: Callable[[], str],
) -> Outcome:
    earlier = run.attempts()
    number = len(earlier) + 1
    if earlier and "end" not in earlier[-1]:
        # Whatever ended it left no time to say so: a kill -9, a node that went down, a power cut.
        run.record_attempt(number - 1, end=None, cause="KILLED")
    facts: Mapping[str, Any] = {
        "job": job,
        "node": socket.gethostname(),
        "pid": os.getpid(),
        "start": round(time.time(), 3),
    }
    run.record_attempt(number, **facts)
    try:
        outcome = execute(run, should_stop, reporter)
    except KeyboardInterrupt:
        run.record_attempt(number, end=round(time.time(), 3), cause="INTERRUPTED")
        raise
    except BaseException as error:
        message = (
            str(error) if isinstance(error, RelayError) else "".join(traceback.format_exception_only(error)).strip()
        )
        run.record_attempt(number, end=round(time.time(), 3), cause="CRASHED", error=message)
        raise
    cause = "DONE" if outcome.status == "done" else cause_of_stop()
    steps = {"first_step": outcome.first_step, "last_step": outcome.last_step, "total_steps": outcome.total_steps}
    run.record_attempt(number, end=round(time.time(), 3), cause=cause, **steps)
    return outcome


def write_provenance(run: RunDir, device: str) -> None:
    """Keep with the run what it is computed with."""
    replace_file(run.provenance_file, json_text(provenance(device)))
