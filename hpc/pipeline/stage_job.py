"""The small job that advances a pipeline once the jobs of a stage are over."""

from __future__ import annotations

import shlex
import sys

from hpc import slurm
from hpc.pipeline.directory import Pipeline
from hpc.submission.plan import job_name, options_without_slice
from hpc.submission.profile import Profile
from hpc.submission.submit import show_in_logs
from src.log import log
from src.runs.code_snapshot import check_commands


def submit_stage_job(pipeline: Pipeline, stage: str, queued_tasks: set[str], profile: Profile) -> None:
    """A small job that continues the chain once the link's jobs are over, however they end."""
    # One that runs is this one, or does just the same at this moment.
    waiting = [job for job in slurm.squeue(pipeline.job_names()) if slurm.phase(job.state) == "waiting"]
    if waiting:
        print(f"job {waiting[0].job_id} continues {pipeline.name} after it")
        return
    name = job_name(pipeline.path, len(pipeline.job_names()) + 1)
    pipeline.record(job_name=name, after=stage)
    pipeline.jobs.mkdir(exist_ok=True)
    show_in_logs(pipeline.config(), pipeline.jobs)
    options = options_without_slice(
        profile,
        dependency="afterany:" + ":".join(sorted({job.partition("_")[0] for job in queued_tasks})),
        output=str(pipeline.jobs / "%j.out"),
        chdir=pipeline.meta()["folder"],
    )
    job = slurm.submit_script(name, _stage_script(pipeline, profile), options)
    log.info(f"job {job} continues {pipeline.name} when the jobs of {stage} are over")


def _stage_script(pipeline: Pipeline, profile: Profile) -> str:
    call = [sys.executable, "-m", "hpc.launch", "pipeline", "--advance", str(pipeline.path)]
    lines = [
        *check_commands(pipeline.snapshot()),
        f"cd {shlex.quote(pipeline.meta()['folder'])}",
        *profile.setup,
        shlex.join(call),
    ]
    return "\n".join(lines)
