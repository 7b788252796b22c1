"""Cancel queued and running tasks of a run, a sweep, a pipeline or all of them."""

from __future__ import annotations

import getpass
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from hpc import slurm
from hpc.pipeline.directory import Pipeline, all_pipelines
from hpc.pipeline.names import find_pipeline, resolve_stage_name
from hpc.pipeline.stage_job import cancel_stage_jobs
from src.config.schema import Config
from src.errors import RunError
from src.log import log
from src.runs.names import find_named
from src.runs.rundir import RunDir, SweepDir
from src.runs.sweeps import sweeps, with_whole_manifests
from src.text import counted

if TYPE_CHECKING:
    pass
from hpc.submission.submissions import queues_of, submissions
from src.runs.names import print_names


def cancel_runs(config: Config, name: str) -> None:
    """Stop what waits or runs of a run, a sweep, a pipeline or all; only a command of the user's starts it again."""
    if name.isdigit():
        raise RunError(f"cancel {name}: give a sweep, a run or all; a job by its number: scancel {name}")
    runs_dir = Path(config.paths.runs_dir)
    everything = name == "all"
    pipeline = None if everything else find_pipeline(runs_dir, name)
    # Before it is asked which sweeps the pipeline has: it must make no more.
    of_pipeline = cancel_stage_jobs(pipeline) if pipeline else []
    chosen = _asked_for(runs_dir, name, pipeline)
    runs = [run for sweep, only in chosen for run in ([only] if only else sweep.runs()) if not run.is_done()]
    # Before the question what is in the queue: what goes on by itself must not submit it again in between.
    for run in runs:
        run.cancel()
    queues, _ = queues_of([sweep for sweep, _ in chosen])
    tasks = {run: queues[run.path.parent].get(run.name, ()) for run in runs}
    ids = list(dict.fromkeys(job.job_id for jobs in tasks.values() for job in jobs))
    ids += _stage_jobs(runs_dir) if everything else []
    slurm.cancel(ids)
    told = [run for run, jobs in tasks.items() if not jobs and _stop_local(run)]
    stopped = [*(run for run, jobs in tasks.items() if jobs), *told]
    labels = [only.label if only else sweep.name for sweep, only in chosen]
    where = pipeline.name if pipeline else labels[0] if len(labels) == 1 else counted(len(labels), "sweep")
    ids = [*of_pipeline, *ids]
    number = len(ids) + len(told)
    print(f"{where}: " + (f"cancelled {counted(number, 'task')}" if number else "nothing of it waits or runs"))
    print_names(stopped)
    reached = set(stopped)
    held = [run for run in runs if run not in reached]
    if held:
        print("not in the queue, and not started before you submit them again:")
        print_names(held)
    beside = [
        f"{sweep.name}/{other}"
        for sweep, only in chosen
        for other, jobs in queues[sweep.path].items()
        if only and other != only.name and any(job.job_id in ids for job in jobs)
    ]
    if beside:
        print(f"one task executes several runs, these stop with it: {', '.join(beside)}")


def _asked_for(runs_dir: Path, name: str, pipeline: Pipeline | None) -> list[tuple[SweepDir, RunDir | None]]:
    if pipeline:
        return [(sweep, None) for sweep in pipeline.stage_sweeps()]
    if name == "all":
        return [(sweep, None) for sweep in with_whole_manifests(sweeps(runs_dir)) if _has_whole_submissions(sweep)]
    return [find_named(runs_dir, str(resolve_stage_name(runs_dir, name)))]


def _has_whole_submissions(sweep: SweepDir) -> bool:
    """Whether it can be told which jobs are the sweep's; where not, that is said."""

    try:
        submissions(sweep)
    except RunError as error:
        log.warning(f"not cancelled: {error}")
        return False
    return True


def _stage_jobs(runs_dir: Path) -> list[str]:
    """The jobs that continue with pipelines; first of all, so that they submit nothing more."""
    names = [name for pipeline in all_pipelines(runs_dir.absolute()) for name in pipeline.job_names()]
    return [job.job_id for job in slurm.squeue(names) if slurm.in_flight(job.state)]


def _stop_local(run: RunDir) -> bool:
    """Tell a worker of this machine to save and end; True if there was one."""
    try:
        attempts = run.attempts()
    except RunError as error:
        log.warning(f"it is not known whether a process executes it: {error}")
        return False
    if not attempts or "end" in attempts[-1] or not run.alive():
        return False
    if attempts[-1].get("node") != socket.gethostname():
        return False
    try:
        os.kill(attempts[-1]["pid"], signal.SIGTERM)
    except (KeyError, ProcessLookupError, PermissionError):
        log.warning(f"{run.label}: process {attempts[-1].get('pid')} of {getpass.getuser()} cannot be told")
        return False
    return True
