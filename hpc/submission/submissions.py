"""What was submitted for a sweep, and which of its tasks are still in SLURM's queue.

submissions.jsonl has two lines for each array: first the intent, with the job's unique name and the runs of each task,
then the job's id. If a launcher died in between, the job is found in the queue by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc import slurm
from relay import hints
from relay.errors import ClusterError
from relay.files import read_lines
from relay.runs import records
from relay.runs.attempt import last_attempt
from relay.runs.causes import REQUEUED_AFTER
from relay.runs.rundir import RunDir, SweepDir

# Of several tasks of one run, the first in this order counts.
_PHASE_ORDER: Sequence[slurm.Phase] = ("running", "ending", "waiting", "unknown", "over")


@dataclass(frozen=True)
class Submission:
    """One submitted array: its job name, the runs of each task in the order of the array, and its job id.

    `job_id` is None if the launcher died before sbatch answered. `time`: of the intent, in seconds since 1970.
    `unseen`: what sbatch said of a job that the queue did not show. `cluster`: where it went, "" if that is unknown.
    """

    job_name: str
    tasks: tuple[tuple[str, ...], ...]
    job_id: str | None
    time: float = 0.0
    unseen: str = ""
    cluster: str = ""

    def task_id(self, position: int) -> str:
        """The id of a task: `70_3` for the fourth of an array, `70` for a single job."""
        return f"{self.job_id}_{position}" if len(self.tasks) > 1 else str(self.job_id)


def submissions(sweep: SweepDir) -> list[Submission]:
    """All submissions of a sweep, oldest first. Raises RunError if the file is damaged."""
    merged: dict[str, Submission] = {}
    for line in read_lines(sweep.submissions_file, records.SUBMISSION):
        name = line["job_name"]
        if "tasks" in line:
            tasks = tuple(tuple(runs) for runs in line["tasks"])
            merged[name] = Submission(name, tasks, None, line.get("time", 0.0), cluster=line.get("cluster", ""))
        elif name in merged:
            known = merged[name]
            merged[name] = replace(known, job_id=line.get("job_id"), unseen=line.get("unseen", known.unseen))
    return list(merged.values())


def next_number(sweep: SweepDir) -> int:
    """The number of the sweep's next submission. Refused submissions keep theirs: a job name is never used twice."""
    return len(submissions(sweep)) + 1


def in_queue(sweep: SweepDir) -> slurm.Queue:
    """Run name -> its tasks that wait, run or end. Asks squeue once; raises ClusterError if it does not answer."""
    known = submissions(sweep)
    return match_queue(known, slurm.squeue([submission.job_name for submission in known]))


def match_queue(known: Sequence[Submission], jobs: Sequence[slurm.QueuedJob]) -> slurm.Queue:
    """Run name -> its tasks that are not over, running ones first.

    Jobs are matched by name, so the id need not be known. A run has several tasks if sbatch was repeated after a
    time-out and SLURM took both.
    """
    by_name = {submission.job_name: submission for submission in known}
    queued_tasks = [job for job in jobs if job.name in by_name and slurm.in_flight(job.state)]
    by_run: dict[str, list[slurm.QueuedJob]] = {}
    for job in sorted(queued_tasks, key=lambda job: _PHASE_ORDER.index(slurm.phase(job.state))):
        _, _, index = job.job_id.partition("_")
        position = int(index) if index.isdigit() else 0
        tasks = by_name[job.name].tasks
        for name in tasks[position] if position < len(tasks) else ():
            by_run.setdefault(name, []).append(job)
    return by_run


def refuse_unseen(sweep: SweepDir, runs: Sequence[RunDir], here: str) -> None:
    """Raise ClusterError if one of these runs may be executed by a job that cannot be seen in this queue.

    None of them is in the queue of the cluster `here`. But its last submission may have gone to another one, or have
    been accepted and never seen; and it has not come to an end since. A cancel settles it.
    """
    newest = {name: each for each in submissions(sweep) for names in each.tasks for name in names}
    for run in runs:
        sent = newest.get(run.name)
        if sent is None or run.cancelled():
            continue
        elsewhere = here and sent.cluster not in ("", here)
        why = sent.unseen or (f"it went to the cluster {sent.cluster}, and this is {here}" if elsewhere else "")
        since = [attempt for attempt in run.attempts() if attempt.start >= sent.time]
        # A task that began was a task that this queue has shown. One of another cluster may come back after a requeue.
        last = last_attempt(since)
        came_to_end = last and (last.retried is not None or (last.ended and last.cause not in REQUEUED_AFTER))
        settled = came_to_end if elsewhere else since
        if why and not settled:
            cancel = hints.command("hpc.launch", "cancel", sweep.name)
            raise ClusterError(
                f"{sweep.name}: job {sent.job_name} may still execute these runs, so they are not submitted again: "
                f"{why}. Once it is cancelled: {cancel}, then: {hints.again()}"
            )


def last_tasks(known: Sequence[Submission]) -> dict[str, tuple[str, float]]:
    """Run name -> the id of the newest task submitted for it, and when (seconds since 1970)."""
    return {
        name: (submission.task_id(position), submission.time)
        for submission in known
        if submission.job_id
        for position, names in enumerate(submission.tasks)
        for name in names
    }


def queues_of(sweeps: Sequence[SweepDir]) -> tuple[dict[Path, slurm.Queue], list[slurm.QueuedJob]]:
    """Sweep path -> run name -> its queued tasks; and all jobs that squeue lists. Asks squeue at most once."""
    by_sweep = {sweep.path: submissions(sweep) for sweep in sweeps}
    names = [submission.job_name for subs in by_sweep.values() for submission in subs]
    known = slurm.squeue(names)
    return {path: match_queue(subs, known) for path, subs in by_sweep.items()}, known
