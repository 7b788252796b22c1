"""One attempt at a run: take the lock, record the start, execute, and record the end with its cause."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from relay.errors import RelayError
from relay.files import append_lines
from relay.log import log
from relay.program.states import list_states, newest_step
from relay.progress import Reporter, StopCheck
from relay.runs.attempt import Attempt, Attempts, last_attempt, unfinished_attempt
from relay.runs.causes import AT_ONCE, check_allowed
from relay.runs.code_snapshot import code_digest
from relay.runs.environment import Environment
from relay.runs.memory import most_memory, peak_memory
from relay.runs.planned import restore_config
from relay.runs.provenance import provenance
from relay.runs.rundir import RunDir

# Called with the result before result.json is written: a run that is killed in between publishes again.
Publish = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `done`: result.json is written. `stopped`: the state is saved, and the next attempt resumes
    from it.

    `total_steps`: None if that is not known. `save_s` is the longest time that saving a state took, in seconds, and of
    a program its longest step before that; None if none was saved.
    """

    status: Literal["done", "stopped"]
    first_step: int
    last_step: int
    total_steps: int | None
    save_s: float | None = None


Execute = Callable[[RunDir, StopCheck, Reporter], Outcome]
# Why an attempt ended, and when, in seconds since 1970; None if that is unknown.
EndCause = tuple[str, float | None]


class AttemptError(RelayError):
    """An attempt that ended otherwise than its work would say: `cause` is one of those of relay/runs/causes.py."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        # Of the attempt, as `_steps_so_far` names them, where the run's files do not tell.
        self.steps: Mapping[str, int] = {}


class AttemptHooks:
    """What depends on where an attempt is executed. These defaults are for one run in the process of its command."""

    # Seconds to wait for the run lock.
    lock_wait_s: float = 0

    def facts(self) -> Mapping[str, Any]:
        """What to record at the start of the attempt, such as its job and slice."""
        return {}

    def check_allowed(self, run: RunDir) -> None:
        """Raise RelayError if the run may not be started again."""

    def cause_of_stop(self) -> str:
        """Why the run was asked to stop, if not by a cancel."""
        return "INTERRUPTED"

    def infer_end_cause(self, attempt: Attempt) -> EndCause:
        """Why an earlier attempt without an end record ended."""
        return "KILLED", None


def attempt(
    run: RunDir,
    execute: Execute,
    should_stop: StopCheck,
    reporter: Reporter,
    hooks: AttemptHooks | None = None,
) -> Outcome:
    """Lock the run, execute it, and record why the attempt ended. If the run is done once it is locked, do nothing.

    The cause is DONE, CANCELLED, the hook's `cause_of_stop` after another stop, OUT_OF_MEMORY, or CRASHED. Raises
    RunError if another process has the run, TakenOverError if another process takes it over, and what
    `hooks.check_allowed` and `execute` raise.
    """
    hooks = hooks or AttemptHooks()
    restore_config(run)
    with run.lock(hooks.lock_wait_s) as lock:
        result = run.result()
        if result is not None:
            steps = int(result.get("steps", 0))
            return Outcome("done", steps, steps, steps)
        while True:
            close_orphaned_attempt(run, hooks.infer_end_cause)
            hooks.check_allowed(run)
            try:
                with run.owned(lock) as owned:
                    return _recorded(owned, execute, should_stop, reporter, hooks)
            except AttemptError as error:
                if error.cause not in AT_ONCE or should_stop() or run.cancelled():
                    raise
                # Whoever executes it: a command that always asks for it would never end.
                check_allowed(run.label, run.attempts())
                log.info(f"{run.label}: {error}")


def close_orphaned_attempt(run: RunDir, infer_end_cause: Callable[[Attempt], EndCause]) -> None:
    """Record the end of an attempt that could not do so itself: a kill -9, a node that went down, a power cut.

    The caller holds the run lock.
    """
    orphan = unfinished_attempt(run.attempts())
    if orphan is not None:
        cause, end = infer_end_cause(orphan)
        # SLURM reports whole seconds, so its end of a short attempt can lie before the start recorded here.
        end = max(end or last_activity(run), orphan.start)
        run.record_attempt(orphan.number, end=end, cause=cause, **_steps_so_far(run))


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
        outcome = execute(run, lambda: should_stop() or owner.lost or owner.cancelled, reporter)
    except KeyboardInterrupt:
        _close(run, number, cause="INTERRUPTED")
        raise
    except BaseException as error:
        # torch raises OutOfMemoryError if the slice is full, Python MemoryError if the job is. By name, because the
        # login node must not import torch.
        memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        message = (
            str(error) if isinstance(error, RelayError) else "".join(traceback.format_exception_only(error)).strip()
        )
        cause = error.cause if isinstance(error, AttemptError) else "OUT_OF_MEMORY" if memory else "CRASHED"
        _close(run, number, cause=cause, error=message, **(error.steps if isinstance(error, AttemptError) else {}))
        raise
    cancelled = owner.cancelled or run.cancelled()
    cause = "DONE" if outcome.status == "done" else "CANCELLED" if cancelled else hooks.cause_of_stop()
    steps = {"first_step": outcome.first_step, "last_step": outcome.last_step}
    steps |= {} if outcome.total_steps is None else {"total_steps": outcome.total_steps}
    saved = {} if outcome.save_s is None else {"save_s": outcome.save_s}
    run.record_attempt(number, end=_now(), cause=cause, **steps, **saved, **peak_memory())
    return outcome


def _close(run: RunDir, number: int, **facts: str | int) -> None:
    # A full disk must not hide the error that ended the attempt; the next attempt records this end. If another process
    # has taken over the run, record_attempt raises TakenOverError.
    with contextlib.suppress(OSError):
        run.record_attempt(number, end=_now(), **{**_steps_so_far(run), **facts}, **peak_memory())


def _steps_so_far(run: RunDir) -> dict[str, int]:
    """The steps of an attempt that was killed or failed, from the run's files.

    `first_step`: where it began; `last_step`: the newest saved state, from which the next attempt resumes;
    `reached_step`: the last logged step; the steps after `last_step` are lost.
    """
    attempts = run.attempts()
    last = last_attempt(attempts)
    starts = [attempt.last_step for attempt in attempts if attempt.last_step is not None]
    starts += [last.first_step] if last and last.first_step is not None else []
    return {
        "first_step": starts[-1] if starts else 0,
        # Of a command, only its next attempt tells what it has saved.
        "last_step": reached_step(run) if run.is_of_a_command else newest_step(run.checkpoints),
        "reached_step": reached_step(run),
    }


def reached_step(run: RunDir) -> int:
    """The newest step with a saved state or a row of metrics."""
    row = run.last_metrics()
    return max(newest_step(run.checkpoints), row["step"] if row else 0)


def note_steps(run: RunDir, first_step: int, total_steps: int | None, environments: Sequence[Environment]) -> None:
    """Add its first step, the run's total steps (None: not known), and the environments in which it computed so far and
    will now, to the record of the current attempt, for status and tables.
    """
    attempts = run.attempts()
    if unfinished_attempt(attempts):
        steps = {"first_step": first_step, **({} if total_steps is None else {"total_steps": total_steps})}
        run.record_attempt(len(attempts), **steps, environments=list(environments))


def note_first_step(run: RunDir) -> None:
    """Add the time of the first step, or of the first evaluation, to the record of the current attempt: now."""
    attempts = run.attempts()
    if unfinished_attempt(attempts):
        run.record_attempt(len(attempts), first_step_at=_now())


def memory_of_attempts(run: RunDir) -> dict[str, int]:
    """The peak memory of the attempts so far, the current one in this process included, as `most_memory` returns it."""
    return most_memory([*(attempt.memory for attempt in run.attempts()), peak_memory()])


def last_activity(run: RunDir) -> float:
    """The time of the last write to the run's files, heartbeats included, in seconds since 1970."""
    files = [run.owner_file, run.attempts_file, run.metrics_file, *list_states(run.checkpoints)]
    return round(max((path.stat().st_mtime for path in files if path.exists()), default=0.0), 3)


def _now() -> float:
    return round(time.time(), 3)


def write_provenance(run: RunDir, device: str, environment: Environment, **more: Any) -> None:
    """Record code, versions, environment, host and device of this attempt, and `more`, in provenance.jsonl."""
    facts = {"attempt": len(run.attempts()), "code_snapshot": code_digest(), **provenance(device, environment)}
    append_lines(run.provenance_file, [{**facts, **more}], check=run.check_owner)


def state_of_run(run: RunDir, result: Mapping[str, Any] | None, attempts: Attempts) -> str:
    """`done`, `diverged`, `running`, `cancelled`, `new`, `missing` if its directory is gone, or the cause of the last
    attempt's end, in lower case.
    """
    if result:
        return "diverged" if result.get("outcome") == "diverged" else "done"
    if unfinished_attempt(attempts) and run.alive():
        return "running"
    if run.cancelled():
        return "cancelled"
    if not attempts:
        return "new" if run.path.is_dir() else "missing"
    # No end record, and no process holds the run.
    if unfinished_attempt(attempts):
        return "killed"
    return str(attempts[-1].cause).lower()
