"""SubmitPlan -> jobs, through submitit; what is about to be submitted is on disk before sbatch is called.

submissions.jsonl of a sweep: a line of intent with the job's unique name, then one with the job ids that answered it.
An intent without an answer (a launcher that died in between) is found again in the queue by its name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc import slurm
from src.config.schema import Config
from src.errors import ClusterError
from src.log import log
from src.runs.rundir import RunDir, SweepDir

if TYPE_CHECKING:
    pass


from dataclasses import dataclass, replace

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from hpc import slurm_command
from hpc.node.task import Task
from hpc.submission.plan import MAX_NUM_TIMEOUT, SubmitPlan, worker_python
from src.files import DiskError, append_lines, read_lines
from src.runs import records
from src.runs.attempts import unfinished_attempt

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


def surplus_tasks(sweep: SweepDir, queue: slurm.Queue) -> list[str]:
    """Ids of the tasks that can be spared: each of their runs has another one, which executes it or runs already."""
    kept = {_chosen(sweep.run(name), jobs).job_id for name, jobs in queue.items()}
    return sorted({job.job_id for jobs in queue.values() for job in jobs} - kept)


def _chosen(run: RunDir, jobs: Sequence[slurm.QueuedJob]) -> slurm.QueuedJob:
    if len(jobs) == 1:
        return jobs[0]
    owner = (unfinished_attempt(run.attempts()) or {}).get("job")
    return next((job for job in jobs if job.job_id == owner and slurm.phase(job.state) == "running"), jobs[0])


def last_tasks(made: Sequence[Submission]) -> dict[str, tuple[str, float]]:
    """Run name -> the id of the newest task that was submitted for it, and when, in seconds since 1970."""
    return {
        name: (submission.task_id(position), submission.time)
        for submission in made
        if submission.job_id
        for position, names in enumerate(submission.tasks)
        for name in names
    }


def submit(plan: SubmitPlan, sweep: SweepDir) -> Submission:
    """Submit the plan as one array. A busy controller is waited for, and asked whether it has taken the array before
    it is sent again. Raises ClusterError if SLURM refuses, with its own words.
    """
    tasks = tuple(tuple(path.name for path in runs) for runs in plan.tasks)
    append_lines(sweep.submissions_file, [{"job_name": plan.job_name, "tasks": tasks, "time": round(time.time(), 3)}])
    plan.log_folder.mkdir(parents=True, exist_ok=True)
    job_id = slurm.send_once(plan.job_name, lambda: _sbatch(plan))
    append_lines(sweep.submissions_file, [{"job_name": plan.job_name, "job_id": job_id, "time": round(time.time(), 3)}])
    return Submission(plan.job_name, tasks, job_id)


def _sbatch(plan: SubmitPlan) -> str:
    try:
        executor = submitit.SlurmExecutor(plan.log_folder, MAX_NUM_TIMEOUT, python=worker_python())
        executor.update_parameters(**plan.parameters)
        locations = {name: os.environ[name] for name in slurm_command.LOCATIONS if name in os.environ}
        # Inside an interactive allocation, sbatch would take over what that was given.
        with clean_env():
            os.environ.update(locations)
            with executor.batch():
                jobs = [executor.submit(Task([str(path) for path in runs])) for runs in plan.tasks]
    except FailedSubmissionError as error:
        # It ended well and named no job; submitit's other lines are about its own Python objects.
        raise ClusterError(str(error).partition("\n")[0]) from None
    except (FailedJobError, RuntimeError) as error:
        raise slurm_command.refusal(f"sbatch refused: {_last_words(error)}") from None
    except OSError as error:
        if error.filename != "sbatch":
            raise DiskError(plan.log_folder, error) from error
        raise slurm_command.not_executable("sbatch", error) from None
    return str(jobs[0].job_id).partition("_")[0]


def _last_words(error: Exception) -> str:
    said = str(error).splitlines()
    busy = [line.strip() for line in said if slurm_command.is_busy(line)]
    lines = busy or [line.strip() for line in said if "error" in line.lower()] or said
    return lines[-1] if lines else "no reason was given"


def show_in_logs(config: Config, folder: Path) -> None:
    """Make the jobs in `folder` of a sweep seen as logs/<sweep>. Only a view: jobs need the folder, not the link."""
    link, target = Path(config.paths.logs_dir).absolute() / folder.parent.name, folder.resolve()
    try:
        if link.is_symlink() and link.resolve() != target:
            link.unlink()  # From before a move.
        if not os.path.lexists(link):  # It may be the folder in which an earlier version kept the logs.
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent.resolve()))
    except FileExistsError:
        return
    except OSError as error:
        log.warning(f"{link}: cannot be made ({error.strerror}); the logs are in {folder}")


def queues_of(made: Sequence[SweepDir]) -> tuple[dict[Path, slurm.Queue], list[slurm.QueuedJob]]:
    """Sweep path -> run name -> queued tasks, and all that SLURM knows; one question, none without submissions."""
    by_sweep = {sweep.path: submissions(sweep) for sweep in made}
    names = [submission.job_name for subs in by_sweep.values() for submission in subs]
    known = slurm.squeue(names)
    return {path: match_queue(subs, known) for path, subs in by_sweep.items()}, known
