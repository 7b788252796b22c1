"""One stage of a pipeline: its jobs submitted, or its result recorded."""

from __future__ import annotations

from hpc.pipeline.directory import Pipeline, StageRecord
from hpc.pipeline.stage_job import submit_stage_job
from hpc.pipeline.stage_sweep import classify_stage, open_stage_sweep
from hpc.submission.execute import execute
from hpc.submission.outcome import refuse_unfinished, show_outcome
from hpc.submission.placement import remember_profile
from hpc.submission.prepare import choose_code
from hpc.submission.profile import Profile
from hpc.submission.site import SiteLimits
from hpc.submission.submissions import in_queue
from hpc.works import PIPELINE, work_of
from relay import hints
from relay.errors import RunError


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
