"""SubmitPlan -> jobs, through submitit; what is about to be submitted is on disk before sbatch is called.

submissions.jsonl of a sweep: a line of intent with the job's unique name, then one with the job ids that answered it.
An intent without an answer (a launcher that died in between) is found again in the queue by its name.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from hpc import slurm
from hpc.lifecycle import Task
from hpc.plan import MAX_NUM_TIMEOUT, PROJECT_ROOT, SubmitPlan, worker_python
from src.errors import ClusterError
from src.files import append_lines, read_lines
from src.rundir import SweepDir


@dataclass(frozen=True)
class Submission:
    """One intent and its answer: the job's name, its runs in the order of the array, its job id where it is known."""

    job_name: str
    runs: tuple[str, ...]
    job_id: str | None

    def element(self, position: int) -> str | None:
        """The id of the task of run `position`: `123_4`, or `123` where there is no array."""
        if self.job_id is None or len(self.runs) == 1:
            return self.job_id
        return f"{self.job_id}_{position}"


def submissions(sweep: SweepDir) -> list[Submission]:
    """All submissions of a sweep, oldest first."""
    merged: dict[str, Submission] = {}
    for line in read_lines(sweep.submissions_file):
        name = str(line["job_name"])
        if "runs" in line:
            merged[name] = Submission(name, tuple(line["runs"]), None)
        elif name in merged:
            merged[name] = Submission(name, merged[name].runs, str(line["job_id"]))
    return list(merged.values())


def in_queue(sweep: SweepDir) -> dict[str, slurm.QueuedJob]:
    """Run name -> its task that waits, runs or ends now. One question to the scheduler; raises ClusterError."""
    made = submissions(sweep)
    jobs = slurm.queued([submission.job_name for submission in made])
    return match_queue(made, jobs)


def match_queue(made: list[Submission], jobs: list[slurm.QueuedJob]) -> dict[str, slurm.QueuedJob]:
    """Run name -> the queued task that executes it, also of a submission whose answer was never written."""
    by_name = {submission.job_name: submission for submission in made}
    found: dict[str, slurm.QueuedJob] = {}
    for job in jobs:
        submission = by_name.get(job.name)
        if submission:
            _, _, index = job.job_id.partition("_")
            position = int(index) if index.isdigit() else 0
            if position < len(submission.runs):
                found[submission.runs[position]] = job
    return found


def submit(plan: SubmitPlan, sweep: SweepDir) -> Submission:
    """Submit the plan as one array. Raises ClusterError where SLURM refuses, with its own words."""
    runs = [path.name for path in plan.runs]
    append_lines(sweep.submissions_file, [{"job_name": plan.job_name, "runs": runs, "time": round(time.time(), 3)}])
    plan.log_folder.mkdir(parents=True, exist_ok=True)
    try:
        executor = submitit.SlurmExecutor(plan.log_folder, MAX_NUM_TIMEOUT, python=worker_python())
        executor.update_parameters(**plan.parameters)
        with _outside_of_jobs(), executor.batch():
            jobs = [executor.submit(Task([str(path)])) for path in plan.runs]
    except (FailedJobError, FailedSubmissionError) as error:
        raise ClusterError(f"sbatch refused: {_last_words(error)}") from None
    except RuntimeError as error:
        raise ClusterError(f"sbatch: {error}") from None
    job_id = str(jobs[0].job_id).partition("_")[0]
    append_lines(sweep.submissions_file, [{"job_name": plan.job_name, "job_id": job_id, "time": round(time.time(), 3)}])
    return Submission(plan.job_name, tuple(runs), job_id)


def local_executor(log_folder: Path, time_min: int, signal_lead_s: int) -> submitit.LocalExecutor:
    """submitit's executor for this machine, set up so that its workers find the code."""
    log_folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.LocalExecutor(folder=log_folder, max_num_timeout=MAX_NUM_TIMEOUT)
    executor.update_parameters(timeout_min=time_min, signal_delay_s=signal_lead_s)
    return executor


@contextlib.contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for what is started inside, and set them back."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def code_environment() -> dict[str, str]:
    """Variables under which a worker finds the project, wherever it is started from."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{PROJECT_ROOT}{os.pathsep}{before}" if before else str(PROJECT_ROOT)}


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Submit as from a login node also inside an interactive allocation, whose variables sbatch would take over."""
    from submitit.helpers import clean_env

    conf = {"SLURM_CONF": os.environ["SLURM_CONF"]} if "SLURM_CONF" in os.environ else {}
    with clean_env(), environment(conf):
        yield


def _last_words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "error" in line.lower()] or str(error).splitlines()
    return lines[-1] if lines else "no reason was given"
