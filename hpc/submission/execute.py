"""Execute the missing runs of a sweep where its profile says: on this machine, or on SLURM as arrays, each run once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection

from hpc.recovery.reconcile import blocked_by_cause, classify_runs
from hpc.submission.local_pool import LocalPool
from hpc.submission.plan import Target
from hpc.submission.profile import Profile
from hpc.submission.queue_cleanup import clean_queue, raise_throttle
from hpc.submission.site import SiteLimits
from hpc.submission.submissions import refuse_unseen
from hpc.submission.submit import show_in_logs, submit_runs
from relay import hints
from relay.cli import EXIT_STOPPED
from relay.config.sections import Paths
from relay.log import log, say
from relay.progress import make_reporter
from relay.runs.code_snapshot import sweep_code
from relay.runs.planning_lock import folder_lock
from relay.runs.rundir import SweepDir
from relay.text import counted


def execute(
    sweep: SweepDir,
    profile: Profile,
    site: SiteLimits | None,
    paths: Paths,
    only: Collection[str] | None = None,
    *,
    by_user: bool = True,
) -> None:
    """Execute the missing runs of a sweep (of those named in `only`): on SLURM, or here if `site` is None.

    `by_user`: a user's command called this, and not a pipeline's own job. Only the former submits cancelled runs again.
    """
    if site is None:
        run_in_pool(sweep, profile, paths, only)
    else:
        submit_missing(sweep, profile, site, paths, only, by_user=by_user)


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


def submit_missing(
    sweep: SweepDir,
    profile: Profile,
    site: SiteLimits,
    paths: Paths,
    only: Collection[str] | None = None,
    *,
    by_user: bool = True,
) -> None:
    """Submit the runs that are neither done nor in the queue (of those named in `only`), and print a summary.

    `by_user`: a user's command called this. It submits cancelled runs again; a pipeline's own job does not.
    Raises ClusterError if SLURM refuses all of them.
    """
    # One submitter at a time: a second launch waits here, and then sees the jobs of the first one in the queue.
    with folder_lock(sweep.path):
        queue = clean_queue(sweep, only, wait=by_user)
        if by_user:
            raise_throttle(queue, profile.max_parallel)
        by_state = classify_runs(sweep, queue)
        candidates = [*by_state.to_submit, *(by_state.cancelled if by_user else [])]
        to_submit = [run for run in candidates if only is None or run.name in only]
        refuse_unseen(sweep, to_submit, site.cluster)
        for run in to_submit if by_user else []:
            run.lift_cancel()
        # Their tasks hold the slice for other runs: those that have not come to them yet will execute them.
        lifted = [run for run in by_state.queued if by_user and run.cancelled() and (only is None or run.name in only)]
        for run in lifted:
            run.lift_cancel()
        queued_tasks = {job.job_id for jobs in queue.values() for job in jobs}
        submitted = 0
        if to_submit:
            show_in_logs(paths, sweep.jobs)
            submitted = submit_runs(to_submit, Target(sweep, profile, site, sweep_code(sweep)), queued_tasks)
    print(f"{len(by_state.done)} done, {len(by_state.queued)} in the queue before, {submitted} submitted")
    if lifted:
        later = f"if those tasks have skipped them already, to start them once the tasks have ended: {hints.again()}"
        print(f"cancelled earlier and requested again: {counted(len(lifted), 'run')} of tasks in the queue; {later}")
    if by_state.running_elsewhere:
        print(f"executed by processes outside of SLURM: {counted(len(by_state.running_elsewhere), 'run')}")
    if by_state.blocked:
        print(f"{counted(len(by_state.blocked), 'run')} failed, not submitted again without a retry:")
        print(blocked_by_cause(by_state.blocked))
    say(f"to see their state: {hints.command('hpc.launch', 'status', sweep.name)}")
