"""Sort the runs of a sweep by what to do next, from their directories and from SLURM's queue."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hpc.recovery.diagnosis import ends_of, infer_end_cause
from relay import hints
from relay.errors import RelayError, RunError
from relay.runs.attempt import last_attempt, unfinished_attempt
from relay.runs.causes import STOPPED_BY_USER, Blocked, damaged, why_blocked
from relay.runs.lifecycle import close_orphaned_attempt
from relay.runs.planned import restore_config
from relay.runs.rundir import RunDir, SweepDir

_SHOWN = 20


@dataclass
class RunsByState:
    """The runs of a sweep, each in one of six collections.

    `done`: has a valid result. `queued`: a task of it waits, runs or ends in SLURM. `running_elsewhere`: a process
    outside of SLURM holds its lock. `blocked`: out of budget until a retry, or its files are damaged. `cancelled`: by
    its user, whose own command alone submits it again. `to_submit`: everything else.
    """

    done: list[RunDir] = field(default_factory=list)
    queued: list[RunDir] = field(default_factory=list)
    running_elsewhere: list[RunDir] = field(default_factory=list)
    blocked: dict[RunDir, Blocked] = field(default_factory=dict)
    cancelled: list[RunDir] = field(default_factory=list)
    to_submit: list[RunDir] = field(default_factory=list)

    def failed(self) -> list[RunDir]:
        """The runs that `retry` starts again: blocked ones, and those ended by anything but their user."""
        ended = [run for run in self.to_submit if run.attempts() and last_cause(run) not in STOPPED_BY_USER]
        # A retry cannot repair damaged files.
        return [*(run for run, blocked in self.blocked.items() if not blocked.damaged), *ended]


def classify_runs(sweep: SweepDir, queue: Collection[str]) -> RunsByState:
    """Sort the runs of a sweep; `queue` has the names of those with a task in SLURM's queue.

    Attempts without an end record (their process was killed) are closed first. If there are any, accounting is asked
    once for all of them. A lost config.yaml is written again.
    """
    by_state, open_runs = RunsByState(), []
    for run in sweep.runs():
        if run.is_done():
            by_state.done.append(run)
        elif run.name in queue:
            by_state.queued.append(run)
        elif message := run.damage():
            by_state.blocked[run] = damaged(message)
        elif run.is_locked_now() and not _is_of_a_job(run):
            by_state.running_elsewhere.append(run)
        else:
            open_runs.append(run)
    _close_orphaned_attempts(open_runs)
    for run in open_runs:
        blocked = _lost_config(run) or why_blocked(run.attempts())
        if blocked:
            by_state.blocked[run] = blocked
        elif run.cancelled():
            by_state.cancelled.append(run)
        else:
            by_state.to_submit.append(run)
    return by_state


def _lost_config(run: RunDir) -> Blocked | None:
    # Here, before a slice is used for it. A run whose directory was deleted starts over.
    try:
        restore_config(run)
    except RelayError as error:
        return damaged(str(error))
    return None


def _is_of_a_job(run: RunDir) -> bool:
    # The job has left the queue, but its lock looks fresh still. The run is submitted: its new task waits for the lock,
    # and breaks it once the old process is silent (hpc/node/run_lock.py).
    attempt = unfinished_attempt(run.attempts())
    return attempt is not None and attempt.on_slurm


def _close_orphaned_attempts(runs: Collection[RunDir]) -> None:
    orphaned = {run: attempt for run in runs if (attempt := unfinished_attempt(run.attempts()))}
    ends = ends_of(list(orphaned.values())) if orphaned else []
    for run in orphaned:
        try:
            with run.lock():
                close_orphaned_attempt(run, lambda attempt: infer_end_cause(attempt, ends))
        except RunError:
            continue  # Another process has just started the run, and closes the attempt itself.


def last_cause(run: RunDir) -> str | None:
    """The cause of the end of the run's newest attempt. None if there is none, or it has not ended."""
    last = last_attempt(run.attempts())
    return last.cause if last else None


def reset_budgets(runs: Collection[RunDir], now: float) -> None:
    """Reset the budgets of the runs, by recording a retry at `now` (seconds since 1970) in their newest attempts."""
    for run in runs:
        if last := last_attempt(run.attempts()):
            with run.lock():
                run.record_attempt(last.number, retried=now)


def blocked_by_cause(blocked: Mapping[RunDir, Blocked]) -> str:
    """The damaged runs, then two lines for each cause: how many runs, one of them, its error; and what to do."""
    damages = [str(each) for each in blocked.values() if each.damaged]
    lines = [*damages[:_SHOWN], *([f"and {len(damages) - _SHOWN} more like these"] if len(damages) > _SHOWN else [])]
    blocked = {run: each for run, each in blocked.items() if not each.damaged}
    for cause in dict.fromkeys(str(each.cause) for each in blocked.values()):
        runs = [run for run, each in blocked.items() if each.cause == cause]
        errors = [last.error for run in runs if (last := last_attempt(run.attempts())) and last.error]
        reason = f": {errors[0]}" if errors else ""
        lines.append(f"{len(runs)} {cause} ({runs[0].name}{', …' if len(runs) > 1 else ''}){reason}")
        retry = hints.command("hpc.launch", "retry", runs[0].sweep().name, "--failed")
        lines.append(f"  {blocked[runs[0]].advice}, then: {retry}")
    return "\n".join(lines)
