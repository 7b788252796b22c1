"""The runs of a sweep on this machine: executed by the local pool, then collected into the table."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from hpc.recovery.reconcile import blocked_by_cause, classify_runs
from hpc.submission.local_pool import LocalPool
from hpc.submission.profile import Profile
from hpc.submission.submit import show_in_logs
from src import hints
from src.cli import EXIT_STOPPED
from src.config.schema import Config
from src.errors import RunError
from src.log import log
from src.progress import make_reporter
from src.results.table import collect
from src.runs.code_snapshot import sweep_code
from src.runs.rundir import SweepDir


def run_here(sweep: SweepDir, profile: Profile, config: Config, only: Collection[str] | None) -> None:
    """Execute what is missing of the sweep on this machine, and collect its results. Raises RunError if runs fail."""
    by_state = classify_runs(sweep, {})
    runs = [
        run
        for run in (*by_state.to_submit, *by_state.cancelled, *by_state.running_elsewhere)
        if only is None or run.name in only
    ]
    for run in runs:
        run.lift_cancel()
    if runs:
        show_in_logs(config, sweep.jobs)
        with make_reporter() as reporter:
            complete = LocalPool(profile, sweep.jobs.absolute(), reporter, sweep_code(sweep)).execute(runs)
        if not complete:
            log.info(f"stopped; to continue: {hints.again()}")
            sys.exit(EXIT_STOPPED)
    collect(sweep, Path(config.paths.artifacts_dir))
    left = classify_runs(sweep, {})
    undone = [*left.blocked, *left.cancelled, *left.to_submit]
    if undone:
        first = undone[0]
        more = f"to see more: {hints.command('hpc.launch', 'logs', first.label)}"
        raise RunError(
            f"{len(undone)} of {len(sweep.runs())} runs are not done; {more}\n{blocked_by_cause(left.blocked)}".rstrip()
        )
