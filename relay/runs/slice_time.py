"""How long attempts held their slices, and how much of that was overhead: everything before the first step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from relay.runs.attempt import Attempt, Attempts


class SliceTime(NamedTuple):
    """Seconds on slices: all of them, and those before the first steps (imports, images, device, first compile)."""

    used_s: float
    overhead_s: float


def slice_time(runs: Iterable[Attempts], now: float) -> SliceTime:
    """The time of all attempts of these runs. A running attempt counts until `now` (seconds since 1970).

    A task counts from the start of its job to the end of its last attempt. Its overhead is the time in which none of
    its runs was between its first step and its end. So all runs that share tasks must be given. If SLURM did not say
    when the job started, or there is no job, each attempt counts by itself.
    """
    by_task: dict[object, list[Attempt]] = {}
    for attempt in (attempt for attempts in runs for attempt in attempts):
        # A requeued job keeps its id, but each of its executions starts anew.
        known = attempt.job_start is not None
        task = (attempt.cluster, attempt.job, attempt.job_start) if known else id(attempt)
        by_task.setdefault(task, []).append(attempt)
    times = [_of_task(attempts, now) for attempts in by_task.values()]
    return SliceTime(sum(time.used_s for time in times), sum(time.overhead_s for time in times))


def _of_task(attempts: Attempts, now: float) -> SliceTime:
    # Never after the first start: the controller's clock may be ahead of the node's.
    begun = min(time for attempt in attempts for time in (attempt.start, attempt.job_start) if time is not None)
    until, worked_s = begun, 0.0
    for first, end in sorted(_work(attempt, now) for attempt in attempts):
        # Runs that share a slice work at the same time, which counts once.
        worked_s += max(0.0, end - max(first, until))
        until = max(until, end)
    return SliceTime(until - begun, until - begun - worked_s)


def _work(attempt: Attempt, now: float) -> tuple[float, float]:
    """When an attempt completed its first step, and when it ended: at the same time if it did no step."""
    end = max(attempt.start, now if attempt.end is None else attempt.end)
    return (end if attempt.first_step_at is None else min(attempt.first_step_at, end)), end
