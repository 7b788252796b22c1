"""What was submitted for a sweep, and which of it SLURM still has in its queue.

submissions.jsonl of a sweep: a line of intent with the job's unique name, then one with the job ids that answered it.
An intent without an answer (a launcher that died in between) is found again in the queue by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc import slurm
from src.files import read_lines
from src.runs import records
from src.runs.rundir import SweepDir

_PHASE_ORDER: Sequence[slurm.Phase] = ("running", "ending", "waiting", "unknown", "over")


@dataclass(frozen=True)
class Submission:
    """One intent and its answer: the job's name, the runs of each task in the order of the array, its id if known.

    `time`: of the intent, in seconds since 1970.
    """

    job_name: str
    tasks: tuple[tuple[str, ...], ...]
    job_id: str | None
    time: float = 0.0

    def task_id(self, position: int) -> str:
        """The id of a task: `70_3` of an array's fourth, `70` where there is one task only."""
        return f"{self.job_id}_{position}" if len(self.tasks) > 1 else str(self.job_id)


def submissions(sweep: SweepDir) -> list[Submission]:
    """All submissions of a sweep, oldest first. Raises RunError if the file is damaged."""
    merged: dict[str, Submission] = {}
    for line in read_lines(sweep.submissions_file, records.SUBMISSION):
        name = line["job_name"]
        if "tasks" in line:
            merged[name] = Submission(name, tuple(tuple(runs) for runs in line["tasks"]), None, line.get("time", 0.0))
        elif name in merged:
            merged[name] = replace(merged[name], job_id=line["job_id"])
    return list(merged.values())


def next_number(sweep: SweepDir) -> int:
    """Of the sweep's next submission; one that was refused has had a number too."""
    return len(submissions(sweep)) + 1


def in_queue(sweep: SweepDir) -> slurm.Queue:
    """Run name -> its tasks that wait, run or end. One question to the controller; raises ClusterError."""
    made = submissions(sweep)
    return match_queue(made, slurm.squeue([submission.job_name for submission in made]))


def match_queue(made: Sequence[Submission], jobs: Sequence[slurm.QueuedJob]) -> slurm.Queue:
    """Run name -> its tasks that are not over, those that run first, also of a submission whose answer was never
    written. A run has several where an sbatch was answered late and sent again.
    """
    by_name = {submission.job_name: submission for submission in made}
    queued_tasks = [job for job in jobs if job.name in by_name and slurm.in_flight(job.state)]
    found: dict[str, list[slurm.QueuedJob]] = {}
    for job in sorted(queued_tasks, key=lambda job: _PHASE_ORDER.index(slurm.phase(job.state))):
        _, _, index = job.job_id.partition("_")
        position = int(index) if index.isdigit() else 0
        tasks = by_name[job.name].tasks
        for name in tasks[position] if position < len(tasks) else ():
            found.setdefault(name, []).append(job)
    return found


def last_tasks(made: Sequence[Submission]) -> dict[str, tuple[str, float]]:
    """Run name -> the id of the newest task that was submitted for it, and when, in seconds since 1970."""
    return {
        name: (submission.task_id(position), submission.time)
        for submission in made
        if submission.job_id
        for position, names in enumerate(submission.tasks)
        for name in names
    }


def queues_of(made: Sequence[SweepDir]) -> tuple[dict[Path, slurm.Queue], list[slurm.QueuedJob]]:
    """Sweep path -> run name -> queued tasks, and all that SLURM knows; one question, none without submissions."""
    by_sweep = {sweep.path: submissions(sweep) for sweep in made}
    names = [submission.job_name for subs in by_sweep.values() for submission in subs]
    known = slurm.squeue(names)
    return {path: match_queue(subs, known) for path, subs in by_sweep.items()}, known
