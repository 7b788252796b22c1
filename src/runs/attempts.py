"""One attempt at a run: claimed, written down when it starts and when it ends, whatever it ends in."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from src.errors import RelayError
from src.files import append_lines
from src.progress import Reporter, StopCheck
from src.runs.causes import Attempts
from src.runs.checkpoint_names import list_states, newest_step
from src.runs.code_snapshot import code_digest
from src.runs.provenance import provenance
from src.runs.rundir import RunDir

# What is done with a result before it is written, so that a run that was stopped in between does it again.
Publish = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """`done`: result.json is written. `stopped`: the state is saved, and executing the run again goes on from it.

    `save_s` is the longest time that a checkpoint took, in seconds; None if none was written.
    """

    status: Literal["done", "stopped"]
    first_step: int
    last_step: int
    total_steps: int
    save_s: float | None = None


Execute = Callable[[RunDir, StopCheck, Reporter], Outcome]
# A cause, and when the attempt ended, in seconds since 1970, where that is known.
Loss = tuple[str, float | None]


class AttemptHooks:
    """What an attempt asks of the place where it is executed. As it is: one run in the foreground, no scheduler."""

    # How long to wait for the run's lock, in seconds.
    lock_wait_s: float = 0

    def facts(self) -> Mapping[str, Any]:
        """What to record when the attempt starts: its job, its slice."""
        return {}

    def check_allowed(self, run: RunDir) -> None:
        """Raise RelayError if the run may not be started again."""

    def cause_of_stop(self, run: RunDir) -> str:
        """Why the run was asked to stop."""
        return "INTERRUPTED"

    def infer_end_cause(self, attempt: Mapping[str, Any]) -> Loss:
        """Why an earlier attempt ended that left no end record."""
        return "KILLED", None


def attempt(
    run: RunDir,
    execute: Execute,
    should_stop: StopCheck,
    reporter: Reporter,
    hooks: AttemptHooks | None = None,
) -> Outcome:
    """Lock the run, execute it, and record the cause of the attempt's end. A run that is done by then is left alone.

    The cause is DONE, the hook's `cause_of_stop` after a stop, OUT_OF_MEMORY, or CRASHED. Raises RunError if another
    process has the run, TakenOverError if another process takes it over, and what `hooks.check_allowed` and
    `execute` raise.
    """
    hooks = hooks or AttemptHooks()
    with run.lock(hooks.lock_wait_s):
        result = run.result()
        if result is not None:
            steps = int(result.get("steps", 0))
            return Outcome("done", steps, steps, steps)
        close_orphaned_attempt(run, hooks.infer_end_cause)
        hooks.check_allowed(run)
        with run.owned() as owned:
            return _recorded(owned, execute, should_stop, reporter, hooks)


def unfinished_attempt(attempts: Attempts) -> Mapping[str, Any] | None:
    """The newest attempt, where it left no word. Whether it is still going on is told by the claim on its run."""
    return attempts[-1] if attempts and "end" not in attempts[-1] else None


def close_orphaned_attempt(run: RunDir, infer_end_cause: Callable[[Mapping[str, Any]], Loss]) -> None:
    """Write down how an attempt ended that could not do so itself: a kill -9, a node that went down, a power cut.

    For whoever holds the run.
    """
    left = unfinished_attempt(run.attempts())
    if left is not None:
        cause, end = infer_end_cause(left)
        # SLURM's times are in whole seconds.
        end = max(end or last_activity(run), float(left["start"]))
        run.record_attempt(int(left["attempt"]), end=end, cause=cause, **_steps_left(run))


def _recorded(
    run: RunDir,
    execute: Execute,
    should_stop: StopCheck,
    reporter: Reporter,
    hooks: AttemptHooks,
) -> Outcome:
    number, process = len(run.attempts()) + 1, {"node": socket.gethostname(), "pid": os.getpid()}
    run.record_attempt(number, **hooks.facts(), code=code_digest(), **process, start=_now())
    owner = run.owner
    assert owner
    try:
        outcome = execute(run, lambda: should_stop() or owner.lost, reporter)
    except KeyboardInterrupt:
        _close(run, number, cause="INTERRUPTED")
        raise
    except BaseException as error:
        # torch's OutOfMemoryError is of the slice, Python's MemoryError of the job.
        memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        message = (
            str(error) if isinstance(error, RelayError) else "".join(traceback.format_exception_only(error)).strip()
        )
        cause = "OUT_OF_MEMORY" if memory else "CRASHED"
        _close(run, number, cause=cause, error=message)
        raise
    cause = "DONE" if outcome.status == "done" else hooks.cause_of_stop(run)
    steps = {"first_step": outcome.first_step, "last_step": outcome.last_step, "total_steps": outcome.total_steps}
    saved = {} if outcome.save_s is None else {"save_s": outcome.save_s}
    run.record_attempt(number, end=_now(), cause=cause, **steps, **saved)
    return outcome


def _close(run: RunDir, number: int, **facts: str) -> None:
    # What is raised matters more than a line that a full or vanished disk does not take: the next attempt closes it.
    # A run that was taken over is not closed from here: record_attempt raises.
    with contextlib.suppress(OSError):
        run.record_attempt(number, end=_now(), **facts, **_steps_left(run))


def _steps_left(run: RunDir) -> dict[str, int]:
    """What an attempt leaves that did not come to a stop by itself.

    `first_step`: where it began; `last_step`: what is saved, and where the next one begins; `reached_step`: how far
    its metrics go, which is work to be done again.
    """
    attempts = run.attempts()
    began = [a["last_step"] for a in attempts if "last_step" in a]
    began += [a["first_step"] for a in attempts[-1:] if "first_step" in a]
    return {
        "first_step": int(began[-1]) if began else 0,
        "last_step": newest_step(run.checkpoints),
        "reached_step": reached_step(run),
    }


def reached_step(run: RunDir) -> int:
    """The newest step that a state or a metrics row of the run speaks of."""
    row = run.last_metrics()
    return max(newest_step(run.checkpoints), row["step"] if row else 0)


def note_steps(run: RunDir, first_step: int, total_steps: int) -> None:
    """Write down with the attempt that is going on where it began and how far it has to go; for `status`."""
    attempts = run.attempts()
    if unfinished_attempt(attempts):
        run.record_attempt(len(attempts), first_step=first_step, total_steps=total_steps)


def last_activity(run: RunDir) -> float:
    """When the run's files were last written or its owner's heart last beat, in seconds since 1970."""
    files = [run.owner_file, run.attempts_file, run.metrics_file, *list_states(run.checkpoints)]
    return round(max((path.stat().st_mtime for path in files if path.exists()), default=0.0), 3)


def _now() -> float:
    return round(time.time(), 3)


def write_provenance(run: RunDir, device: str) -> None:
    """Keep with the run what this attempt is computed with."""
    facts = {"attempt": len(run.attempts()), "code_snapshot": code_digest(), **provenance(device)}
    append_lines(run.provenance_file, [facts], check=run.check_owner)


def used_s(attempts: Attempts, now: float) -> float:
    """Seconds that the attempts held their slices; one that is still going on holds it until `now` (since 1970)."""
    return sum(max(0.0, float(attempt.get("end") or now) - float(attempt["start"])) for attempt in attempts)


def wasted_s(attempts: Attempts) -> float:
    """Seconds whose steps had to be done again, because what ended the attempt left no time to save them."""
    wasted = 0.0
    for attempt, following in zip_longest(attempts, attempts[1:]):
        if attempt.get("cause") in (None, "DONE") or "last_step" not in attempt or not attempt.get("end"):
            continue
        first, kept = attempt.get("first_step", 0), attempt["last_step"]
        reached = max(attempt.get("reached_step", kept), kept)
        if following is not None and "first_step" in following:
            kept = min(kept, following["first_step"])
        seconds = attempt["end"] - attempt["start"]
        wasted += seconds * (reached - kept) / (reached - first) if reached > first else seconds
    return wasted
