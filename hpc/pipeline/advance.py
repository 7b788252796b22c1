"""LR sweep, grid, training of the best cell, evaluation: one after the other, each reading what the one before found.

`advance` brings the chain as far as it can be brought now, and is safe to call at any time. On SLURM a small job that
depends on the jobs of a link calls it again when they are over; so does the user, where such a job is lost.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import jobs
from hpc.pipeline.directory import STAGES, Pipeline, find_same_pipeline, make_pipeline
from hpc.pipeline.stage_job import submit_stage_job
from hpc.pipeline.stages import grid_config, stage_request, stage_result
from hpc.recovery.reconcile import RunsByState, blocked_by_cause, classify_runs, last_cause
from hpc.slurm_command import retry
from hpc.submission.arrays import ask_site
from hpc.submission.code_choice import choose_code
from hpc.submission.forecast import forecast_of, refuse_above, total_of
from hpc.submission.launching import execute
from hpc.submission.plan import SiteLimits
from hpc.submission.profile import Profile, load_profile, remember_profile
from hpc.submission.submit import in_queue, submissions
from src import hints
from src.config.schema import Config
from src.errors import RelayError, RunError
from src.results.table import collect
from src.runner import prepare_images
from src.runs.causes import STOPPED_BY_USER
from src.runs.cells import Cell
from src.runs.code_snapshot import change_since, new_code_hint
from src.runs.planning_lock import folder_lock
from src.runs.rundir import SweepDir
from src.runs.sweeps import Request, check_same_images, find_sweep, open_sweep

# Each try waits for half a minute itself.
_STAGE_JOB_WAITS_S = (0,) * 19


def start(
    config: Config,
    cluster: str | None,
    lr_factors: Sequence[float],
    *,
    fresh: bool,
    new_code: bool = False,
    max_slice_hours: float | None = None,
) -> None:
    """Start a chain, or continue with the same one. Raises RunError if a link has failed."""
    pipeline = None if fresh else find_same_pipeline(config, lr_factors)
    # Mistakes in any link are said before the first one is submitted.
    grid = jobs.request_of("grid", grid_config(config, config.train.optimizer.lr, lr_factors))
    asked = pipeline or (None if fresh else find_sweep(grid.runs_dir, grid.kind, grid.key))
    name, profile = load_profile(cluster or (asked.meta().get("profile") if asked else None))
    requests = [jobs.request_of("lr_sweep", config), grid, jobs.request_of("train", config)]
    forecast = total_of(
        [forecast_of(request, _left_of(request, pipeline, fresh=fresh), profile) for request in requests]
    )
    refuse_above(max_slice_hours, forecast)
    prepare_images(grid)
    word = "goes on" if pipeline else "new"
    pipeline = pipeline or make_pipeline(config, lr_factors, fresh=fresh)
    pipeline.use_profile(name, profile)
    print(f"{pipeline.path}: {word}: {' -> '.join(STAGES)}; profile {name}\n{forecast}", flush=True)
    if new_code and word != "new":
        pipeline.use_new_code()
    elif change := change_since(pipeline.snapshot()):
        print(f"continues with the code it was made with; {change}; {new_code_hint()}", flush=True)
    advance(pipeline, by_stage_job=False, new_code=new_code)


def _left_of(request: Request, pipeline: Pipeline | None, *, fresh: bool) -> list[Cell]:
    """As many cells of a stage as are not done, in its sweep or in one of the same content."""
    known = pipeline.standing().get(request.kind, {}).get("sweep") if pipeline else None
    sweep = SweepDir(request.runs_dir / str(known)) if known else None
    if sweep is None and not fresh:
        sweep = find_sweep(request.runs_dir, request.kind, request.key)
    done = sum(run.is_done() for run in sweep.runs()) if sweep else 0
    return list(request.cells)[done:]


def advance(pipeline: Pipeline, *, by_stage_job: bool, new_code: bool = False) -> None:
    """Bring the chain to its next wait, or to its end. Raises RunError if a link has failed, and says which.

    `by_stage_job`: called by the chain's own job, which does not submit again what a user has stopped.
    """
    hints.use(pipeline.meta())
    _, profile = load_profile(str(pipeline.profile_file))
    name = str(pipeline.meta()["profile"])
    site = None
    if profile.executor == "slurm":
        # A link that finds the controller away must not be the end of the chain.
        site = retry(lambda: ask_site(name, profile), _STAGE_JOB_WAITS_S if by_stage_job else ())
    os.chdir(pipeline.meta()["folder"])
    with folder_lock(pipeline.path):
        for stage in STAGES:
            try:
                done = _advance_stage(pipeline, stage, profile, site, by_stage_job=by_stage_job, new_code=new_code)
            except RelayError as error:
                pipeline.record(
                    **pipeline.standing().get(stage, {}) | {"link": stage, "state": "failed", "reason": str(error)}
                )
                raise RunError(f"{pipeline.name} stops at {stage}: {error}") from None
            if not done:
                return
    print(f"{pipeline.name} is complete")
    for stage, line in pipeline.standing().items():
        print(f"  {stage}: {line.get('found', '')}  ({line.get('sweep')})")


def _advance_stage(
    pipeline: Pipeline, stage: str, profile: Profile, site: SiteLimits | None, *, by_stage_job: bool, new_code: bool
) -> bool:
    """True if the link is done; else its jobs are submitted, and a job that goes on after them."""
    request = stage_request(pipeline, stage)
    sweep = _open_sweep(pipeline, stage, request)
    by_state = classify_runs(sweep, in_queue(sweep) if site else {})
    if not by_state.queued:
        _refuse_failed(sweep, by_state, by_stage_job=by_stage_job)
    choose_code(sweep, new_code=new_code, root=pipeline.snapshot())
    if len(by_state.done) < len(request.cells):
        print(f"{stage}: {sweep.path}", flush=True)
        remember_profile(sweep, str(pipeline.meta()["profile"]))
        execute(sweep, profile, site, request.config, by_user=not by_stage_job)
        if site and any(not run.is_done() for run in sweep.runs()):
            queued_tasks = {job.job_id for jobs in in_queue(sweep).values() for job in jobs}
            if not queued_tasks:
                raise RunError(
                    f"nothing of it is in the queue, yet not all of it is done; to see why: "
                    f"{hints.command('hpc.launch', 'status', sweep.name)}; to continue: {hints.again()}"
                )
            pipeline.record(link=stage, state="submitted", sweep=sweep.name)
            submit_stage_job(pipeline, stage, queued_tasks, profile)
            return False
    what = stage_result(stage, sweep)
    if pipeline.standing()[stage]["state"] != "done":
        if site:
            collect(sweep, Path(request.config.paths.artifacts_dir))
        pipeline.record(link=stage, state="done", sweep=sweep.name, found=what)
    where = sweep.meta().get("profile")
    before = (
        f"; on profile {where}, where it was done before" if where not in (None, pipeline.meta()["profile"]) else ""
    )
    print(f"{stage}: done, {what}{before}", flush=True)
    return True


def _open_sweep(pipeline: Pipeline, stage: str, request: Request) -> SweepDir:
    """The link's sweep as it was planned before, or planned now: an earlier one of the same content, unless --fresh."""
    request = prepare_images(request)
    known = pipeline.standing().get(stage, {}).get("sweep")
    sweep = SweepDir(request.runs_dir / known) if known else None
    if sweep is None or sweep.meta()["key"] != request.key:
        sweep, _ = open_sweep(request, fresh=bool(pipeline.meta()["fresh"]), code_root=pipeline.snapshot())
        pipeline.record(link=stage, state="planned", sweep=sweep.name)
    check_same_images(sweep, request)
    return sweep


def _refuse_failed(sweep: SweepDir, by_state: RunsByState, *, by_stage_job: bool) -> None:
    if by_state.blocked:
        raise RunError(
            f"{len(by_state.blocked)} of {len(sweep.runs())} runs failed\n{blocked_by_cause(by_state.blocked)}\n"
            f"then continue with: {hints.again()}"
        )
    submitted = {name for made in submissions(sweep) if made.job_id for runs in made.tasks for name in runs}
    stopped = [
        run
        for run in by_state.to_submit
        if last_cause(run) in STOPPED_BY_USER or (not run.attempts() and run.name in submitted)
    ]
    stopped += by_state.cancelled
    if by_stage_job and stopped:
        logs = hints.command("hpc.launch", "logs", stopped[0].label)
        raise RunError(
            f"{len(stopped)} of {len(sweep.runs())} runs were cancelled, or ended before they began, such as "
            f"{stopped[0].name}: {logs}; to continue: {hints.again()}"
        )
