"""What happened to a sweep, from all sources: its run directories, one question to SLURM, and the logs of its tasks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from hpc import slurm
from hpc.monitor.logs import last_line
from hpc.monitor.status_rows import FINISHED, SweepStatus, sweep_status
from hpc.submission.submissions import last_tasks, queues_of, submissions
from src.errors import ClusterError
from src.log import log
from src.runs.causes import REQUEUED_AFTER
from src.runs.rundir import SweepDir

_NO_LOG = "no log: the task was cancelled before it started, or its log folder was moved, deleted or full"


def query_status(sweep: SweepDir, only: str | None = None) -> SweepStatus:
    """The status of all runs of the sweep, or of the run `only`. If SLURM does not answer, from disk alone."""
    try:
        queues, known = queues_of([sweep])
    except ClusterError as error:
        log.warning(f"the scheduler could not be asked; the status below is from disk alone: {error}")
        return sweep_status(sweep, {}, only)
    queue = queues[sweep.path]
    status = sweep_status(sweep, queue, only)
    # squeue still shows a cancelled job for MinJobAge (300 s by default, slurm.conf(5)).
    cancelled = {job.job_id for job in known if job.state == "CANCELLED"}
    _explain_unstarted(status.rows, sweep, queue, cancelled)
    return status


def _own_cluster() -> str:
    try:
        return slurm.site_settings().cluster
    except ClusterError:
        return ""


def _explain_unstarted(
    rows: Sequence[dict[str, Any]], sweep: SweepDir, queue: slurm.Queue, cancelled: Collection[str]
) -> None:
    """Mark the runs whose newest task left the queue before it started an attempt: `cancelled` or `not started`.

    Such a task leaves nothing in the run directory, so the error shown is the last line of its log.
    """
    known = submissions(sweep)
    tasks, clusters = last_tasks(known), {name: each.cluster for each in known for runs in each.tasks for name in runs}
    here = _own_cluster() if any(clusters.values()) else ""
    for row in rows:
        name = row["run"]
        if name not in tasks or name in queue or row["state"] in (*FINISHED, "running", "cancelled", "damaged"):
            continue
        (task, submitted), attempts = tasks[name], sweep.run(name).attempts()
        last = attempts[-1] if attempts else {}
        started = any(attempt.get("job") == task for attempt in attempts)
        # An attempt without SLURM, on this machine, came after the task. This machine's clock timed both.
        started |= not last.get("cluster") and last.get("start", 0) > submitted
        # A requeued task keeps its id: the attempt with this id may be of the execution before.
        # With an error, it is the newest one: SLURM has refused the requeue.
        lost_after_requeue = (
            last.get("job") == task
            and last.get("cause") in REQUEUED_AFTER
            and last.get("cluster")
            and not last.get("error")
        )
        if here and clusters[name] not in ("", here):
            row |= {
                "state": f"on {clusters[name]}",
                "job": task,
                "error": f"submitted to the cluster {clusters[name]}; the queue of {here} does not show it",
            }
        elif not started or lost_after_requeue:
            row |= {
                "state": "cancelled" if task in cancelled else "not started",
                "job": task,
                "error": last_line(sweep, task) or row["error"] or _NO_LOG,
            }
