"""The record of one attempt at a run, and what readers ask of a run's attempts.

attempts.jsonl has several lines for each attempt, one for what became known at a time; `join_lines` merges them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

from relay.errors import RunError


@dataclass(frozen=True)
class Attempt:
    """One time that a run was started. All times are in seconds since 1970; None is what is not known, or not yet.

    `end` and `cause` come together; a killed attempt has neither until another process closes it. `error`: what ended
    it, or why its task was not requeued. `retried`: when `retry` reset the run's budgets after it.

    `job` is its SLURM job on `cluster`, or, without a cluster, its job of the local pool; `restarts`: how often SLURM
    had requeued the job before, `job_start`: when this execution of it began. `slice`: what the profile requests,
    which `at_once` runs share. `code`: the snapshot that executed it.

    It began at `first_step`, which it completed at `first_step_at`, and resumes from `last_step`; the steps from there
    to `reached_step`, the last logged one, are lost. `environments`: those in which the run computed up to here.
    `host_mb`, `gpu_mb`: peaks, in MiB; `save_s`: the longest time that saving a state took, and a program's longest
    step; of a command, how long it took to answer a stop.
    """

    number: int
    start: float
    end: float | None = None
    cause: str | None = None
    error: str | None = None
    retried: float | None = None
    job: str | None = None
    cluster: str | None = None
    restarts: int | None = None
    job_start: float | None = None
    slice: str | None = None
    at_once: int = 1
    code: str | None = None
    node: str | None = None
    pid: int | None = None
    first_step: int | None = None
    first_step_at: float | None = None
    last_step: int | None = None
    reached_step: int | None = None
    total_steps: int | None = None
    environments: Sequence[dict[str, str]] = ()
    host_mb: int | None = None
    gpu_mb: int | None = None
    save_s: float | None = None

    @property
    def ended(self) -> bool:
        """Whether its end is recorded. If not, it may still be running, or have been killed: only the lock tells."""
        return self.end is not None

    @property
    def interrupted(self) -> bool:
        """Whether it ended before its run was done."""
        return self.cause not in (None, "DONE")

    @property
    def seconds(self) -> float:
        """How long it took; 0 until it has ended."""
        return 0.0 if self.end is None else self.end - self.start

    @property
    def steps(self) -> int | None:
        """How many of its steps were saved; None if that is not known."""
        return None if self.last_step is None else self.last_step - (self.first_step or 0)

    @property
    def on_slurm(self) -> bool:
        """Whether a SLURM job made it."""
        return bool(self.cluster)

    @property
    def memory(self) -> dict[str, int]:
        """Its known peaks: `host_mb` and `gpu_mb`."""
        peaks = {"host_mb": self.host_mb, "gpu_mb": self.gpu_mb}
        return {name: peak for name, peak in peaks.items() if peak is not None}


# The attempts at one run, oldest first, as `RunDir.attempts` returns them.
Attempts = Sequence[Attempt]
_FIELDS = frozenset(field.name for field in fields(Attempt)) - {"number"}


def join_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> tuple[Attempt, ...]:
    """Merge the lines of each attempt, in order; its first end counts. Raises RunError if a line is lost."""
    joined: dict[int, dict[str, Any]] = {}
    for line in lines:
        attempt = joined.setdefault(line["attempt"], {})
        if not ("end" in line and "end" in attempt):
            attempt.update(line)
    for number, attempt in joined.items():
        if "start" not in attempt or ("end" in attempt and "cause" not in attempt):
            missing = "cause" if "start" in attempt else "start"
            raise RunError(
                f"{path}: attempt {number} has no {missing}, its line was lost; restore it, or remove "
                "all lines of that attempt"
            )
    return tuple(
        Attempt(number, **{name: value for name, value in joined[number].items() if name in _FIELDS})
        for number in sorted(joined)
    )


def last_attempt(attempts: Attempts) -> Attempt | None:
    """The newest attempt; None if there is none."""
    return attempts[-1] if attempts else None


def unfinished_attempt(attempts: Attempts) -> Attempt | None:
    """The newest attempt if it has no end record; else None.

    It may still be running, or have been killed: only the run lock tells.
    """
    last = last_attempt(attempts)
    return last if last and not last.ended else None


def causes_of(attempts: Attempts) -> list[str]:
    """The causes of the attempts that were interrupted, in order."""
    return [attempt.cause for attempt in attempts if attempt.cause and attempt.interrupted]


def total_steps_of(attempts: Attempts) -> int | None:
    """How many steps the run has, as its newest attempt that knew it recorded; None if none did."""
    return next((attempt.total_steps for attempt in reversed(attempts) if attempt.total_steps is not None), None)


def wasted_s(attempts: Attempts) -> float:
    """Seconds spent on steps that were lost because an attempt ended before it saved them."""
    return sum(lost for _, lost in _interruptions(attempts))


def kept_s(attempts: Attempts) -> float:
    """Seconds that interrupted attempts spent on steps that were saved: without checkpoints, they would be lost."""
    return sum(seconds - lost for seconds, lost in _interruptions(attempts))


def _interruptions(attempts: Attempts) -> Iterator[tuple[float, float]]:
    """The seconds since the first step of each interrupted attempt, and how many of them were for steps that were lost.

    An attempt that ended before its first step lost none: all of it is overhead, see relay/runs/slice_time.py.
    """
    for attempt, following in zip_longest(attempts, attempts[1:]):
        if not attempt.interrupted or attempt.last_step is None or attempt.end is None:
            continue
        first, saved = attempt.first_step or 0, attempt.last_step
        reached = saved if attempt.reached_step is None else max(attempt.reached_step, saved)
        # The next attempt resumed from an earlier step if the newest state was damaged.
        if following is not None and following.first_step is not None:
            saved = min(saved, following.first_step)
        seconds = 0.0 if attempt.first_step_at is None else max(0.0, attempt.end - attempt.first_step_at)
        yield seconds, seconds * (reached - saved) / (reached - first) if reached > first else seconds
