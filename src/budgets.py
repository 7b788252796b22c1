"""What each cause is allowed: how often it may end an attempt before its run is stopped, and what a user does then.

Pure, and computed from attempts.jsonl alone: whoever reads the run directory comes to the same verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src import hints
from src.errors import RunError

Attempts = Sequence[Mapping[str, Any]]

# None is without limit. A cause that is not here was never seen before, and is allowed as much as a kill.
BUDGETS: Mapping[str, int | None] = {
    "TIMEOUT": 50,
    "PREEMPTED": None,
    "NODE_FAIL": 5,
    "KILLED": 5,
    "OUT_OF_MEMORY": 0,
    "CRASHED": 0,
    "REQUEUED": None,
    "SIGNALLED": None,
    "CANCELLED": None,
    "INTERRUPTED": None,
}
# Of a run whose files cannot be read; no cause of an attempt.
DAMAGED = "DAMAGED"
# After these a task puts itself back into the queue. After a user's own stop it does not: that user submits it again.
REQUEUED_AFTER = frozenset({"TIMEOUT", "PREEMPTED", "NODE_FAIL", "REQUEUED", "SIGNALLED"})
# What a user did: that user goes on with it, nobody else.
STOPPED_BY_USER = frozenset({"CANCELLED", "INTERRUPTED"})
_FROM_OUTSIDE = frozenset({"PREEMPTED", "NODE_FAIL", "KILLED", "REQUEUED"}) | STOPPED_BY_USER
# Attempts in a row without a step done: those that had their time, and all of them. Bad luck is no lack of progress,
# ten times of it are.
MAX_IDLE_ATTEMPTS = 2
MAX_IDLE_WITH_OUTSIDE = 10

_ADVICE = {
    "TIMEOUT": "raise time_min of the profile",
    "NODE_FAIL": "ask the site about the node, or exclude it (sbatch: {exclude: <node>} in the profile)",
    "KILLED": "see its log; a kill without a word is often the memory: raise mem_gb of the profile",
    "OUT_OF_MEMORY": "raise mem_gb of the profile (a larger slice, if it was the GPU's), or lower train.batch_size",
    "CRASHED": "mend what the error says",
    "NO_PROGRESS": "raise time_min of the profile, or lower its signal_lead_s",
}


@dataclass(frozen=True)
class Verdict:
    """Why a run may not be started again: one word, and what to do about it."""

    word: str
    detail: str
    advice: str

    @property
    def damaged(self) -> bool:
        """Whether it is not known what became of the run: its files cannot be read."""
        return self.word == DAMAGED

    def __str__(self) -> str:
        if self.damaged:
            return self.detail
        return f"{self.word} ({self.detail}): {self.advice}"

    def with_retry(self, run: str) -> str:
        """The same, with the command that tries again `run`, a sweep or its `sweep/run`."""
        return str(self) if self.damaged else f"{self}, then: {hints.command('hpc.launch', 'retry', run)}"


def damaged(message: str) -> Verdict:
    """On a run whose files are damaged, with what to do in the message."""
    return Verdict(DAMAGED, message, "")


def verdict(attempts: Attempts) -> Verdict | None:
    """Why a run with these attempts may not be started again; None where it may."""
    counted = since_retry(attempts)
    causes = [str(attempt["cause"]) for attempt in counted if attempt.get("cause") not in (None, "DONE")]
    for cause in dict.fromkeys(reversed(causes)):
        limit, used = BUDGETS.get(cause, BUDGETS["KILLED"]), causes.count(cause)
        if limit is not None and used > limit:
            detail = f"{used} times, {limit} are allowed" if limit else "not tried again by itself"
            return Verdict(cause, detail, _ADVICE.get(cause, "see its log"))
    if _is_stuck(counted):
        return Verdict("NO_PROGRESS", "no step done in its last attempts", _ADVICE["NO_PROGRESS"])
    return None


def admit(label: str, attempts: Attempts) -> None:
    """Raise RunError where the run of this label, with these attempts, may not be started again."""
    refused = verdict(attempts)
    if refused:
        raise RunError(refused.with_retry(label))


def since_retry(attempts: Attempts) -> Attempts:
    """The attempts that count: those after the newest one whose budgets were given back."""
    given_back = [position for position, attempt in enumerate(attempts) if attempt.get("retried")]
    return attempts[given_back[-1] + 1 :] if given_back else attempts


def _is_stuck(attempts: Attempts) -> bool:
    own = outside = 0
    for attempt in reversed(attempts):
        if attempt.get("last_step") is None or attempt["last_step"] > attempt.get("first_step", 0):
            break
        if attempt.get("cause") in _FROM_OUTSIDE:
            outside += 1
        else:
            own += 1
    return own >= MAX_IDLE_ATTEMPTS or own + outside >= MAX_IDLE_WITH_OUTSIDE
