"""Which runs of a sweep `retry` submits again."""

from __future__ import annotations

from collections.abc import Sequence

from hpc.recovery.reconcile import RunsByState, classify_runs, last_cause
from hpc.submission.submissions import in_queue
from relay import hints
from relay.config.messages import nearest
from relay.errors import RunError
from relay.runs.causes import CAUSES
from relay.runs.rundir import RunDir, SweepDir


def failed_runs(sweep: SweepDir, only: RunDir | None, cause: str | None, *, on_slurm: bool) -> list[RunDir]:
    """The failed runs of the sweep: all, or the run `only`, or those that failed for this cause.

    Raises RunError if there are none, or if the files of `only` are damaged.
    """
    by_state = classify_runs(sweep, in_queue(sweep) if on_slurm else {})
    if only in by_state.blocked and by_state.blocked[only].damaged:
        raise RunError(by_state.blocked[only].detail)
    failed = [run for run in by_state.failed() if only in (None, run)]
    chosen = [run for run in failed if cause is None or cause.upper() in _causes(by_state, run)]
    if not chosen:
        raise RunError(f"{only.label if only else sweep.name}: no failed run{_why_none(by_state, failed, cause)}")
    return chosen


def _causes(by_state: RunsByState, run: RunDir) -> set[str | None]:
    """The causes that `--cause` may name: of the last attempt, and of the block, which may be NO_PROGRESS."""
    blocked = by_state.blocked.get(run)
    return {last_cause(run), blocked.cause if blocked else None}


def _why_none(by_state: RunsByState, failed: Sequence[RunDir], cause: str | None) -> str:
    """The end of the message: the causes that there are, or the states of the runs that have not failed."""
    if cause:
        causes = ", ".join(sorted({str(last_cause(run)) for run in failed})) or "none"
        return f" with --cause {cause}{nearest(cause.upper(), CAUSES)}; causes in this sweep: {causes}"
    others = {
        "done": by_state.done,
        "in the queue": by_state.queued,
        "executed by processes outside SLURM": by_state.running_elsewhere,
    }
    counts = [f"{len(runs)} {state}" for state, runs in others.items() if runs]
    if by_state.to_submit or by_state.cancelled:
        counts.append(f"{len(by_state.to_submit) + len(by_state.cancelled)} not submitted; to submit: {hints.again()}")
    return f"; {', '.join(counts)}"
