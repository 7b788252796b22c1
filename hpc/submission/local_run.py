"""Execute the runs of a sweep on this machine with the local pool."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection

from hpc.recovery.reconcile import classify_runs
from hpc.submission.local_pool import LocalPool
from hpc.submission.profile import Profile
from hpc.submission.submit import show_in_logs
from relay import hints
from relay.cli import EXIT_STOPPED
from relay.config.sections import Paths
from relay.log import log
from relay.progress import make_reporter
from relay.runs.code_snapshot import sweep_code
from relay.runs.rundir import SweepDir


def run_in_pool(sweep: SweepDir, profile: Profile, paths: Paths, only: Collection[str] | None) -> None:
    """Execute the missing runs of a sweep on this machine (of those named in `only`), until all have ended.

    Exits with 130 if Ctrl-C stopped it.
    """
    by_state = classify_runs(sweep, {})
    # Runs that another process executes are included: the pool waits for that process, and takes over what it leaves.
    runs = [
        run
        for run in (*by_state.to_submit, *by_state.cancelled, *by_state.running_elsewhere)
        if only is None or run.name in only
    ]
    if not runs:
        return
    code = sweep_code(sweep)
    for run in runs:
        run.lift_cancel()
    show_in_logs(paths, sweep.jobs)
    follow = profile.max_parallel == 1 and log.isEnabledFor(logging.INFO)
    with make_reporter() as reporter:
        complete = LocalPool(profile, sweep.jobs.absolute(), reporter, code, follow=follow).execute(runs)
    if not complete:
        log.info(f"stopped; to continue: {hints.again()}")
        sys.exit(EXIT_STOPPED)
