"""The small SLURM job that advances a pipeline once the jobs of a stage are over."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace

from hpc import sbatch, slurm
from hpc.pipeline.directory import Pipeline
from hpc.submission.plan import job_name, options_without_slice
from hpc.submission.profile import Profile
from hpc.submission.script import script_text, setup_lines
from hpc.submission.submit import show_in_logs
from hpc.submission.trust import trust_option
from relay import hints
from relay.errors import ClusterError
from relay.files import replace_file
from relay.log import log


def submit_stage_job(pipeline: Pipeline, stage: str, queued_tasks: set[str], profile: Profile) -> None:
    """Submit a job that advances the pipeline once the jobs of the stage are over, however they end."""
    # One job that waits is enough. A running one does not count: it may be the process that is submitting now.
    waiting = [job for job in slurm.squeue(pipeline.job_names()) if slurm.phase(job.state) == "waiting"]
    if waiting:
        print(f"job {waiting[0].job_id} continues {pipeline.name} after {stage}")
        return
    _refuse_unseen(pipeline)
    name = job_name(pipeline.path, len(pipeline.job_names()) + 1)
    # Before sbatch, as in submit.py: a job whose id was never written down is found in the queue by its name.
    pipeline.record_job(name, after=stage)
    pipeline.jobs.mkdir(exist_ok=True)
    show_in_logs(pipeline.paths(), pipeline.jobs)
    options = options_without_slice(
        profile,
        # afterany (sbatch(1), --dependency): a failed task still lets the job start, which then says what failed.
        dependency="afterany:" + ":".join(sorted({job.partition("_")[0] for job in queued_tasks})),
        output=str(pipeline.jobs / "%j.out"),
    )
    script = pipeline.jobs / f"{name}.sh"
    replace_file(script, script_text({**options, "job-name": name}, _lines(pipeline, profile)))
    try:
        job = sbatch.submit(name, script)
    except sbatch.UnseenError as error:
        pipeline.record_job(name, unseen=str(error))
        raise
    log.info(f"job {job} continues {pipeline.name} when the jobs of {stage} are over")


def _refuse_unseen(pipeline: Pipeline) -> None:
    """Raise ClusterError if a job that continues the pipeline was accepted and never seen: it may still run."""
    unseen = pipeline.unseen_job()
    if unseen:
        cancel = hints.command("hpc.launch", "cancel", pipeline.name)
        raise ClusterError(
            f"a job that continues {pipeline.name} may still run, so it is not submitted again: {unseen}. Once it is "
            f"cancelled: {cancel}, then: {hints.again()}"
        )


def _lines(pipeline: Pipeline, profile: Profile) -> list[str]:
    return [
        *setup_lines(profile, pipeline.snapshot()),
        f"cd {shlex.quote(pipeline.meta()['folder'])}",
        shlex.join([sys.executable, "-m", "hpc.launch", "pipeline", "--advance", str(pipeline.path), *trust_option()]),
    ]


def cancel_stage_jobs(pipeline: Pipeline) -> list[str]:
    """Cancel the jobs that continue the pipeline, and record the stage that is under way as cancelled.

    Returns the ids of the jobs.
    """
    ids = [job.job_id for job in slurm.squeue(pipeline.job_names()) if slurm.in_flight(job.state)]
    slurm.cancel(ids)
    undone = [record for record in pipeline.stage_records().values() if record.state != "done"]
    if undone:
        pipeline.record_stage(replace(undone[0], state="cancelled"))
    return ids
