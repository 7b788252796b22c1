"""What a command shows of a sweep whose runs have ended: its table and figures, and what its work adds."""

from __future__ import annotations

from hpc.recovery.reconcile import blocked_by_cause, classify_runs
from hpc.works import work_of
from relay import hints
from relay.config.sections import Paths
from relay.errors import RunError
from relay.results.collection import collect
from relay.results.tables.view import View
from relay.runs.rundir import SweepDir
from relay.text import counted


def show_outcome(sweep: SweepDir, paths: Paths, view: View | None = None, suffix: str = "png") -> None:
    """Write and print the tables and figures of a sweep, as far as `view` shows them, and what its work adds.

    Raises RunError if files are damaged.
    """
    answer = collect(sweep, paths.artifacts, view, suffix)
    if any(run.is_done() for run in sweep.runs()):
        work_of(sweep.kind, sweep.path).show(sweep, paths, answer)


def refuse_unfinished(sweep: SweepDir) -> None:
    """Raise RunError if runs of a sweep that was executed on this machine are not done."""
    by_state = classify_runs(sweep, {})
    undone = [*by_state.blocked, *by_state.cancelled, *by_state.to_submit]
    if undone:
        # What was executed by --here has no log.
        has_log = any(attempt.job for attempt in undone[0].attempts())
        logs = f"; to see the log: {hints.command('hpc.launch', 'logs', undone[0].label)}" if has_log else ""
        causes = blocked_by_cause(by_state.blocked)
        raise RunError(f"{len(undone)} of {counted(len(sweep.runs()), 'run')} not done{logs}\n{causes}".rstrip())
