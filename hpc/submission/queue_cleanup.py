"""Tidy a sweep's tasks in the queue before a submission: wait for ending ones, cancel duplicates, release held ones.

And let as many of them run at a time as the profile now allows.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from hpc import slurm
from hpc.submission.submissions import in_queue
from relay import hints
from relay.runs.attempt import unfinished_attempt
from relay.runs.rundir import RunDir, SweepDir
from relay.text import counted, shortlist

# squeue's reason for a task that failed to start on its node after a requeue. Holds by a user or an administrator have
# other reasons (JobHeldUser, JobHeldAdmin) and are left alone.
_HELD = "requeued held"
# A cancelled task has KillWait (30 s by default) to save; then come SLURM's epilog and UnkillableStepTimeout (60 s).
_ENDING_S, _POLL_S = 180.0, 2.0


def clean_queue(sweep: SweepDir, only: Collection[str] | None, *, wait: bool) -> slurm.Queue:
    """The sweep's queue, with duplicate tasks cancelled and held ones released.

    With `wait`, it is read once no task of a run that is not done (of those named in `only`) is ending.
    Raises ClusterError if SLURM does not answer.
    """
    queue = _wait_for_ending_tasks(sweep, only) if wait else in_queue(sweep)
    surplus = surplus_tasks(sweep, queue)
    if surplus:
        slurm.cancel(surplus)
        print(f"{counted(len(surplus), 'task')} too many in the queue; cancelled: {', '.join(surplus[:5])}")
    _release_held(queue)
    return queue


def _wait_for_ending_tasks(sweep: SweepDir, only: Collection[str] | None) -> slurm.Queue:
    # A launch right after a cancel meets tasks that are still saving. Only when they are over is it known what they
    # leave to be submitted. A task that never ends (a broken node) is left to the next launch.
    deadline, announced = time.monotonic() + _ENDING_S, False
    while True:
        queue = in_queue(sweep)
        ending = _ending_tasks(sweep, queue, only)
        shown = shortlist(ending)
        if ending and time.monotonic() >= deadline:
            print(f"{shown}: not over after {_ENDING_S:.0f} s; to submit their runs later: {hints.again()}")
        if not ending or time.monotonic() >= deadline:
            return queue
        if not announced:
            print(f"waiting until tasks have saved and ended: {shown}", flush=True)
            announced = True
        time.sleep(_POLL_S)


def _ending_tasks(sweep: SweepDir, queue: slurm.Queue, only: Collection[str] | None) -> list[str]:
    tasks = {
        job.job_id
        for name, jobs in queue.items()
        if only is None or name in only
        for job in jobs
        if slurm.phase(job.state) == "ending" and not sweep.run(name).is_done()
    }
    return sorted(tasks)


def _release_held(queue: slurm.Queue) -> None:
    # SLURM holds a task that it could not start again, and never releases it by itself.
    tasks = [job for jobs in queue.values() for job in jobs]
    held = sorted({job.job_id for job in tasks if job.state == "PENDING" and _HELD in job.reason})
    if held:
        slurm.release(held)
        print(f"{counted(len(held), 'task')} held by SLURM ({_HELD}: {', '.join(held[:5])}): released")


def raise_throttle(queue: slurm.Queue, max_parallel: int) -> None:
    """Let waiting arrays run as many tasks at a time as `max_parallel`, if that was less when they were submitted.

    The throttle of an array also holds back a task of it that was moved to another partition. Raises ClusterError.
    """
    tasks = {job.job_id: job for jobs in queue.values() for job in jobs}.values()
    held_back = [job for job in tasks if slurm.phase(job.state) == "waiting" and job.reason == "JobArrayTaskLimit"]
    for array in sorted({job.array_id for job in held_back}):
        # Those of other arrays count, except of those that wait until this one is over.
        others = sum(job.array_id != array and job.reason != "Dependency" for job in tasks)
        running = sum(job.array_id == array and slurm.phase(job.state) != "waiting" for job in tasks)
        if max_parallel - others > running:
            slurm.set_throttle(array, max_parallel - others)
            print(f"job {array}: at most {max_parallel - others} of its tasks at a time from now on (max_parallel)")


def surplus_tasks(sweep: SweepDir, queue: slurm.Queue) -> list[str]:
    """Ids of the duplicate tasks: each of their runs has another task that is kept."""
    # A controller that answered sbatch too late may have taken the same array twice.
    keep = {_task_to_keep(sweep.run(name), jobs).job_id for name, jobs in queue.items()}
    return sorted({job.job_id for jobs in queue.values() for job in jobs} - keep)


def _task_to_keep(run: RunDir, jobs: Sequence[slurm.QueuedJob]) -> slurm.QueuedJob:
    if len(jobs) == 1:
        return jobs[0]
    # The one that holds the run; else the first, since `match_queue` puts running tasks first.
    owner = unfinished_attempt(run.attempts())
    return next(
        (job for job in jobs if owner and job.job_id == owner.job and slurm.phase(job.state) == "running"), jobs[0]
    )
