"""The table of causes: how often each may end an attempt of a run before the run is blocked, and what to do then.

Pure functions of attempts.jsonl, so that every process that reads a run directory decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relay import hints
from relay.errors import RunError
from relay.runs.attempt import Attempts, causes_of, total_steps_of


@dataclass(frozen=True)
class Cause:
    """What happens after an attempt ends by this cause.

    `budget`: how often it may happen to one run until `retry` resets it; None means without limit.
    `requeued`: the task puts itself back into the queue.
    `by_user`: the user stopped the run, and only the user's own command submits it again.
    `from_outside`: the run is not to blame, so an attempt without a step is not yet a lack of progress.
    `at_once`: the same process executes the run again; it is no lack of progress at all.
    `advice`: what the user can do once the budget is used up.
    """

    budget: int | None
    requeued: bool = False
    by_user: bool = False
    from_outside: bool = False
    at_once: bool = False
    advice: str = "see its log"


_MORE_TIME = "raise time_min of the profile"
# docs/guarantees.md has the same table; tests/runs/test_causes.py compares them.
CAUSES: Mapping[str, Cause] = {
    "TIMEOUT": Cause(50, requeued=True, advice=_MORE_TIME),
    "PREEMPTED": Cause(None, requeued=True, from_outside=True),
    "REQUEUED": Cause(None, requeued=True, from_outside=True),
    "SIGNALLED": Cause(None, requeued=True),
    "NODE_FAIL": Cause(
        5,
        requeued=True,
        from_outside=True,
        advice="ask the site about the node, or exclude it (sbatch: {exclude: <node>} in the profile)",
    ),
    "KILLED": Cause(
        5,
        from_outside=True,
        advice="see its log; an unexplained kill is often out of memory: raise mem_gb of the profile",
    ),
    "CANCELLED": Cause(None, by_user=True, from_outside=True),
    "INTERRUPTED": Cause(None, by_user=True, from_outside=True),
    "OUT_OF_MEMORY": Cause(
        0, advice="raise mem_gb of the profile (a larger slice, if it was the GPU's), or lower train.batch_size"
    ),
    "AGAIN": Cause(100, at_once=True, advice="its command ends with 75 each time; see its log"),
    "CRASHED": Cause(0, advice="fix what the error reports"),
}
# A cause written by another version of Relay. It gets the budget of a kill.
_UNKNOWN = Cause(CAUSES["KILLED"].budget)
REQUEUED_AFTER = frozenset(name for name, cause in CAUSES.items() if cause.requeued)
AT_ONCE = frozenset(name for name, cause in CAUSES.items() if cause.at_once)
STOPPED_BY_USER = frozenset(name for name, cause in CAUSES.items() if cause.by_user)
# The state of a run whose files cannot be read. Not a cause: no attempt ends by it.
DAMAGED = "DAMAGED"
# Attempts in a row without a step: two that ran their time mean that no step fits into the time limit. One interruption
# from outside proves nothing; ten in a row without a step do.
MAX_IDLE_ATTEMPTS = 2
MAX_IDLE_WITH_OUTSIDE = 10


@dataclass(frozen=True)
class Blocked:
    """Why a run may not be started again: the cause, a detail, and what to do about it."""

    cause: str
    detail: str
    advice: str

    @property
    def damaged(self) -> bool:
        """Whether the state of the run is unknown, because its files cannot be read."""
        return self.cause == DAMAGED

    def __str__(self) -> str:
        if self.damaged:
            return self.detail
        return f"{self.cause} ({self.detail}): {self.advice}"

    def with_retry(self, run: str) -> str:
        """The message with the command that retries `run`, a sweep or a `sweep/run`."""
        return str(self) if self.damaged else f"{self}, then: {hints.command('hpc.launch', 'retry', run)}"


def damaged(message: str) -> Blocked:
    """For a run whose files are damaged. `message` says what to do."""
    return Blocked(DAMAGED, message, "")


def why_blocked(attempts: Attempts) -> Blocked | None:
    """Why a run with these attempts may not be started again; None if it may."""
    counted = since_retry(attempts)
    causes = causes_of(counted)
    for cause in dict.fromkeys(reversed(causes)):
        facts, used = CAUSES.get(cause, _UNKNOWN), causes.count(cause)
        if facts.budget is not None and used > facts.budget:
            detail = f"{used} times, {facts.budget} are allowed" if facts.budget else "not retried automatically"
            return Blocked(cause, detail, facts.advice)
    if _is_stuck(counted):
        advice = f"{_MORE_TIME}, or lower its signal_lead_s"
        if total_steps_of(attempts) is None:
            advice += "; a command's progress is seen by its checkpoints (program.restart) and metrics"
        return Blocked("NO_PROGRESS", "no step in its last attempts", advice)
    return None


def check_allowed(label: str, attempts: Attempts) -> None:
    """Raise RunError if the run `label` with these attempts may not be started again."""
    blocked = why_blocked(attempts)
    if blocked:
        raise RunError(blocked.with_retry(label))


def since_retry(attempts: Attempts) -> Attempts:
    """The attempts that count against the budgets: those since the last `retry`."""
    retried = [position for position, attempt in enumerate(attempts) if attempt.retried]
    return attempts[retried[-1] + 1 :] if retried else attempts


def _is_stuck(attempts: Attempts) -> bool:
    own = outside = 0
    for attempt in reversed(attempts):
        if attempt.cause in AT_ONCE:
            continue
        if attempt.steps is None or attempt.steps > 0:
            break
        if CAUSES.get(str(attempt.cause), _UNKNOWN).from_outside:
            outside += 1
        else:
            own += 1
    return own >= MAX_IDLE_ATTEMPTS or own + outside >= MAX_IDLE_WITH_OUTSIDE
