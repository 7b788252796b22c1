"""What happened to a sweep, from all sources: its run directories, one question to SLURM, and the logs of its tasks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from hpc import slurm
from hpc.monitor.logs import last_line
from hpc.monitor.status_rows import FINISHED, RunStatus, SweepStatus, sweep_status
from hpc.submission.submissions import last_tasks, queues_of, submissions
from relay.errors import ClusterError
from relay.log import log
from relay.runs.attempt import Attempts, last_attempt
from relay.runs.causes import REQUEUED_AFTER
from relay.runs.rundir import SweepDir

_NO_LOG = "no log: the task was cancelled before it started, or its log folder was moved, deleted or full"


def query_status(sweep: SweepDir, only: str | None = None) -> SweepStatus:
    """The status of all runs of the sweep, or of the run `only`. If SLURM does not answer, from disk alone."""
    try:
        queues, known = queues_of([sweep])
    except ClusterError as error:
        log.warning(f"SLURM did not answer; the status below is from disk alone: {error}")
        return sweep_status(sweep, {}, only)
    queue = queues[sweep.path]
    status = sweep_status(sweep, queue, only)
    # squeue still shows a cancelled job for MinJobAge (300 s by default, slurm.conf(5)).
    cancelled = {job.job_id for job in known if job.state == "CANCELLED"}
    return replace(status, rows=_explain_unstarted(status.rows, sweep, queue, cancelled))


def _own_cluster() -> str:
    try:
        return slurm.site_settings().cluster
    except ClusterError:
        return ""


def _explain_unstarted(
    rows: Sequence[RunStatus], sweep: SweepDir, queue: slurm.Queue, cancelled: Collection[str]
) -> list[RunStatus]:
    """The rows, where a run whose newest task left the queue before it started an attempt is `cancelled` or
    `not started`.

    Such a task leaves nothing in the run directory, so the error shown is the last line of its log.
    """
    known = submissions(sweep)
    tasks, clusters = last_tasks(known), {name: each.cluster for each in known for runs in each.tasks for name in runs}
    here = _own_cluster() if any(clusters.values()) else ""
    explained = []
    for row in rows:
        shown, name = row, row.run
        if name in tasks and name not in queue and row.state not in (*FINISHED, "running", "cancelled", "damaged"):
            task, submitted = tasks[name]
            if here and clusters[name] not in ("", here):
                error = f"submitted to the cluster {clusters[name]}; the queue of {here} does not show it"
                shown = replace(row, state=f"on {clusters[name]}", job=task, error=error)
            elif not _has_started(task, submitted, sweep.run(name).attempts()):
                error = last_line(sweep, task) or row.error or _NO_LOG
                state = "cancelled" if task in cancelled else "not started"
                shown = replace(row, state=state, job=task, error=error)
        explained.append(shown)
    return explained


def _has_started(task: str, submitted: float, attempts: Attempts) -> bool:
    """Whether the newest execution of a task, submitted at `submitted` (seconds since 1970), started an attempt."""
    last = last_attempt(attempts)
    if last is None:
        return False
    if last.job == task and last.on_slurm and last.cause in REQUEUED_AFTER:
        # A requeued task keeps its id, so this attempt is of the execution before. With an error, it is of the newest
        # one: SLURM has refused the requeue.
        return bool(last.error)
    # An attempt without SLURM, on this machine, came after the task. This machine's clock timed both.
    return any(attempt.job == task for attempt in attempts) or (not last.on_slurm and last.start > submitted)
