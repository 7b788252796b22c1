"""What is to be done with each run of a sweep: from its directory, and from the tasks that the scheduler knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hpc.recovery.diagnosis import ends_of, infer_end_cause
from src import hints
from src.errors import RunError
from src.runs.attempts import close_orphaned_attempt, unfinished_attempt
from src.runs.causes import STOPPED_BY_USER, Blocked, damaged, why_blocked
from src.runs.rundir import RunDir, SweepDir

_SHOWN = 20


@dataclass
class RunsByState:
    """The runs of a sweep, each in one of six lists."""

    done: list[RunDir] = field(default_factory=list)
    queued: list[RunDir] = field(default_factory=list)
    running_elsewhere: list[RunDir] = field(default_factory=list)
    blocked: dict[RunDir, Blocked] = field(default_factory=dict)
    cancelled: list[RunDir] = field(default_factory=list)
    to_submit: list[RunDir] = field(default_factory=list)

    def failed(self) -> list[RunDir]:
        """What `retry` means: runs that are refused, and those that something other than their user ended."""
        ended = [run for run in self.to_submit if run.attempts() and last_cause(run) not in STOPPED_BY_USER]
        return [*(run for run, found in self.blocked.items() if not found.damaged), *ended]


def classify_runs(sweep: SweepDir, queue: Collection[str]) -> RunsByState:
    """Sort the runs, after closing the attempts that left no word; one question to accounting where there are such.

    `done`; `squeue`: it is in the `queue`, since a task of it waits, runs or ends; `running_elsewhere`: another process
    of this or another machine executes it; `blocked`: it has used up what it is allowed, or its files are damaged;
    `cancelled`: by its user, whose own command alone submits it again; `to_submit`: to be submitted.
    """
    by_state, open_runs = RunsByState(), []
    for run in sweep.runs():
        if run.is_done():
            by_state.done.append(run)
        elif run.name in queue:
            by_state.queued.append(run)
        elif message := run.damage():
            by_state.blocked[run] = damaged(message)
        elif run.is_locked_now() and not _of_a_job(run):
            by_state.running_elsewhere.append(run)
        else:
            open_runs.append(run)
    _close_all_lost(open_runs)
    for run in open_runs:
        blocked = why_blocked(run.attempts())
        if blocked:
            by_state.blocked[run] = blocked
        elif run.cancelled():
            by_state.cancelled.append(run)
        else:
            by_state.to_submit.append(run)
    return by_state


def _of_a_job(run: RunDir) -> bool:
    """A job that has left the queue: a task that is submitted waits for it, and breaks its lock if it is gone."""
    left = unfinished_attempt(run.attempts())
    return left is not None and bool(left.get("cluster"))


def _close_all_lost(runs: Collection[RunDir]) -> None:
    left = {run: attempt for run in runs if (attempt := unfinished_attempt(run.attempts()))}
    ends = ends_of(list(left.values())) if left else []
    for run in left:
        try:
            with run.lock():
                close_orphaned_attempt(run, lambda attempt: infer_end_cause(attempt, ends))
        except RunError:
            continue  # It was started in this moment, and closes what was before it.


def last_cause(run: RunDir) -> str | None:
    """The cause for which the run's newest attempt ended."""
    attempts = run.attempts()
    return str(attempts[-1]["cause"]) if attempts and "cause" in attempts[-1] else None


def reset_budgets(runs: Collection[RunDir], now: float) -> None:
    """Let the runs be started again, whatever ended them before; `now` in seconds since 1970 is written down."""
    for run in runs:
        attempts = run.attempts()
        if attempts:
            with run.lock():
                run.record_attempt(int(attempts[-1]["attempt"]), retried=now)


def blocked_by_cause(blocked: Mapping[RunDir, Blocked]) -> str:
    """A line for every word: how many runs, one of them, its error, what to do; before it the damaged."""
    broken = [str(found) for found in blocked.values() if found.damaged]
    lines = [*broken[:_SHOWN], *([f"and {len(broken) - _SHOWN} more like these"] if len(broken) > _SHOWN else [])]
    blocked = {run: found for run, found in blocked.items() if not found.damaged}
    for word in dict.fromkeys(str(found.cause) for found in blocked.values()):
        runs = [run for run, found in blocked.items() if found.cause == word]
        errors = [str(a["error"]) for run in runs for a in run.attempts()[-1:] if a.get("error")]
        reason = f": {errors[0]}" if errors else ""
        lines.append(f"{len(runs)} {word} ({runs[0].name}{', …' if len(runs) > 1 else ''}){reason}")
        retry = hints.command("hpc.launch", "retry", runs[0].sweep().name, "--failed")
        lines.append(f"  {blocked[runs[0]].advice}, then: {retry}")
    return "\n".join(lines)
