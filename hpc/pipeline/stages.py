"""One stage of a pipeline: its sweep, its jobs, the job that advances the pipeline after them, and its result."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace

from hpc import sbatch, slurm
from hpc.pipeline.directory import Pipeline, StageRecord
from hpc.recovery.reconcile import RunsByState, blocked_by_cause, classify_runs, last_cause
from hpc.slurm import Queue
from hpc.submission.execute import execute
from hpc.submission.outcome import refuse_unfinished, show_outcome
from hpc.submission.placement import remember_profile
from hpc.submission.plan import job_name, options_without_slice
from hpc.submission.prepare import choose_code, prepare_inputs
from hpc.submission.profile import Profile
from hpc.submission.script import script_text, setup_lines
from hpc.submission.site import SiteLimits
from hpc.submission.submissions import in_queue, submissions
from hpc.submission.submit import show_in_logs
from hpc.submission.trust import check_sweep, trust_option
from hpc.works import PIPELINE, work_of
from relay import hints
from relay.errors import ClusterError, RunError
from relay.files import replace_file
from relay.log import log
from relay.runs.causes import STOPPED_BY_USER
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request, check_same_inputs, open_sweep
from relay.text import counted


def advance_stage(
    pipeline: Pipeline, stage: str, profile: Profile, site: SiteLimits | None, *, by_stage_job: bool, new_code: bool
) -> bool:
    """Submit what is missing of a stage. True if the stage is done; else a job continues the pipeline after it.

    Raises RunError if runs of it failed, or if a user stopped them and this is the pipeline's own job.
    """
    request = pipeline.request(stage)
    sweep = open_stage_sweep(pipeline, stage, request)
    by_state = classify_stage(sweep, in_queue(sweep) if site else {}, by_stage_job=by_stage_job)
    choose_code(sweep, work_of(sweep.kind).deciding, new_code=new_code, root=pipeline.snapshot())
    if len(by_state.done) < len(request.cells):
        print(f"{stage}: {sweep.path}", flush=True)
        remember_profile(sweep, pipeline.meta()["call"]["cluster"])
        execute(sweep, profile, site, request.paths, by_user=not by_stage_job)
        if site is None:
            refuse_unfinished(sweep)
        if site and any(not run.is_done() for run in sweep.runs()):
            queued_tasks = {job.job_id for jobs in in_queue(sweep).values() for job in jobs}
            if not queued_tasks:
                raise RunError(
                    f"none of its runs is in the queue, but some are not done; to see why: "
                    f"{hints.command('hpc.launch', 'status', sweep.name)}; to continue: {hints.again()}"
                )
            pipeline.record_stage(StageRecord(stage, "submitted", sweep.name))
            submit_stage_job(pipeline, stage, queued_tasks, profile)
            return False
    result = PIPELINE[stage].found(sweep)
    if pipeline.stage_records()[stage].state != "done":
        show_outcome(sweep, request.paths)
        pipeline.record_stage(StageRecord(stage, "done", sweep.name, result))
    profile_name = sweep.meta()["call"].get("cluster")
    is_elsewhere = profile_name not in (None, pipeline.meta()["call"]["cluster"])
    before = f"; it was done before, on profile {profile_name}" if is_elsewhere else ""
    print(f"{stage}: done, {result}{before}", flush=True)
    return True


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


def open_stage_sweep(pipeline: Pipeline, stage: str, request: Request) -> SweepDir:
    """The sweep of a stage: the one that it had before, or one planned now.

    Unless the pipeline is --fresh, an earlier sweep of the same content counts as planned. Raises DataError if the
    data has changed, RunError if it is another user's and --trust was not given.
    """
    request = prepare_inputs(request)
    sweep = pipeline.stage_sweep(stage)
    # The key differs if an earlier stage was run again and gave another result.
    if sweep is None or sweep.meta()["key"] != request.key:
        sweep, _ = open_sweep(request, fresh=bool(pipeline.meta()["fresh"]), code_root=pipeline.snapshot())
        pipeline.record_stage(StageRecord(stage, "planned", sweep.name))
    check_sweep(sweep)
    check_same_inputs(sweep, request)
    return sweep


def classify_stage(sweep: SweepDir, queue: Queue, *, by_stage_job: bool) -> RunsByState:
    """The runs of the stage by their state.

    Raises RunError if the stage cannot continue by itself: its runs are blocked, or a user stopped them.
    """
    by_state = classify_runs(sweep, queue)
    if by_state.queued:
        return by_state  # What still runs is not held up by what has failed.
    if by_state.blocked:
        raise RunError(
            f"{len(by_state.blocked)} of {counted(len(sweep.runs()), 'run')} failed\n"
            f"{blocked_by_cause(by_state.blocked)}\n"
            f"then continue with: {hints.again()}"
        )
    submitted = {name for each in submissions(sweep) if each.job_id for names in each.tasks for name in names}
    # A task that was submitted and never made an attempt was cancelled while it waited.
    stopped = [
        run
        for run in by_state.to_submit
        if last_cause(run) in STOPPED_BY_USER or (not run.attempts() and run.name in submitted)
    ]
    stopped += by_state.cancelled
    if by_stage_job and stopped:
        logs = hints.command("hpc.launch", "logs", stopped[0].label)
        raise RunError(
            f"{len(stopped)} of {counted(len(sweep.runs()), 'run')} cancelled or never started, such as "
            f"{stopped[0].name}; to see its log: {logs}; to continue: {hints.again()}"
        )
    return by_state
