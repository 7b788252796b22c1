"""Start a pipeline, and advance it stage by stage until it waits for jobs or is complete.

Both are safe to call at any time. On SLURM, a small job calls `advance` again when the jobs of a stage are over. If
that job is lost, the user calls it with the command that started the pipeline.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc.pipeline.directory import STAGES, Pipeline, StageRecord, find_same_pipeline, make_pipeline
from hpc.pipeline.stages import advance_stage
from hpc.slurm_command import retry
from hpc.submission.forecast import forecast_of, refuse_above, total_of, unfinished_cells
from hpc.submission.placement import place
from hpc.submission.prepare import prepare_inputs
from hpc.submission.profile import read_profile
from hpc.submission.site import ask_site, check_job_folder
from hpc.submission.trust import check_folder, check_sweep
from hpc.works import PIPELINE, work_of
from relay import hints
from relay.errors import RelayError, RunError
from relay.runs.code_snapshot import change_since, new_code_hint
from relay.runs.planning_lock import folder_lock
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request, find_sweep

# A question to a controller that is away takes half a minute by itself (slurm_command.WAITS_S), so these retries need
# no wait in between: together they take ten minutes.
_STAGE_JOB_WAITS_S = (0,) * 19


def advance(pipeline: Pipeline, *, by_stage_job: bool, new_code: bool = False) -> None:
    """Advance the pipeline until it waits for jobs or is complete. Raises RunError, with the stage, if a stage fails.

    `by_stage_job`: called by the pipeline's own job, which does not submit again what a user has stopped.
    """
    with hints.acting_for(pipeline.meta()):
        _advance(pipeline, by_stage_job=by_stage_job, new_code=new_code)


def _advance(pipeline: Pipeline, *, by_stage_job: bool, new_code: bool) -> None:
    check_folder(pipeline.path, pipeline.meta())
    profile = read_profile(pipeline.profile_file)
    name = str(pipeline.meta()["call"]["cluster"])
    site = None
    if profile.executor == "slurm":
        # Nobody repeats the call of the pipeline's own job: it must outlast a restart of the controller.
        site = retry(lambda: ask_site(name, profile), _STAGE_JOB_WAITS_S if by_stage_job else ())
    # Relative paths in the configuration are meant from where the pipeline was started.
    os.chdir(pipeline.meta()["folder"])
    with folder_lock(pipeline.path):
        for stage in STAGES:
            try:
                done = advance_stage(pipeline, stage, profile, site, by_stage_job=by_stage_job, new_code=new_code)
            except RelayError as error:
                known = pipeline.stage_records().get(stage, StageRecord(stage, "failed"))
                pipeline.record_stage(replace(known, state="failed", reason=str(error)))
                raise RunError(f"{pipeline.name} stops at {stage}: {error}") from None
            if not done:
                return
    print(f"{pipeline.name} is complete")
    for stage, record in pipeline.stage_records().items():
        print(f"  {stage}: {record.result or ''}  ({record.sweep})")


def advance_at(path: Path) -> None:
    """`advance` for the pipeline in the folder `path`, called by the job that SLURM starts between two stages."""
    advance(Pipeline(path), by_stage_job=True)


def start_pipeline(
    asked: Mapping[str, Any],
    cluster: str | None,
    *,
    fresh: bool,
    new_code: bool = False,
    max_slice_hours: float | None = None,
) -> None:
    """Start a pipeline, or continue the one of which the same was `asked`. Raises RunError if a stage has failed."""
    pipeline = None if fresh else find_same_pipeline(asked)
    # Every stage is planned once before the first one is submitted: a mistake in the training's settings should not
    # surface only after the LR sweep and the grid have run. The rate is a placeholder until the LR sweep is done.
    requests = PIPELINE.at_start(asked)
    first = next(iter(requests.values()))
    check_job_folder(first.runs_dir)
    continued = {name: _sweep_to_continue(pipeline, request, fresh=fresh) for name, request in requests.items()}
    # What it continues says where it went before.
    saved = pipeline or next(filter(None, continued.values()), None)
    placement = place(first.runs_dir, cluster, saved.meta() if saved else None, first.inputs)
    profile = placement.profile
    for sweep in filter(None, continued.values()):
        check_sweep(sweep)  # Not only when its stage comes, which may be hours later, in a job.
    forecast = total_of(
        [
            forecast_of(request, unfinished_cells(request, continued[name]), profile)
            for name, request in requests.items()
        ]
    )
    refuse_above(max_slice_hours, forecast)
    for request in requests.values():
        prepare_inputs(request, fresh=fresh)
    is_new = pipeline is None
    if pipeline:
        check_folder(pipeline.path, pipeline.meta())  # Before its profile is replaced.
    pipeline = pipeline or make_pipeline(asked, fresh=fresh)
    pipeline.use_profile(placement.name, profile)
    state = "new" if is_new else "continued"
    print(f"{pipeline.path}: {state}: {' -> '.join(STAGES)}; {placement}\n{forecast}", flush=True)
    if new_code and not is_new:
        pipeline.use_new_code()
    elif change := change_since(pipeline.snapshot(), _deciding(requests)):
        print(f"continues with the code it was made with; {change}; {new_code_hint()}", flush=True)
    advance(pipeline, by_stage_job=False, new_code=new_code)


def _deciding(requests: Mapping[str, Request]) -> list[str]:
    return [prefix for request in requests.values() for prefix in work_of(request.kind).deciding]


def _sweep_to_continue(pipeline: Pipeline | None, request: Request, *, fresh: bool) -> SweepDir | None:
    """The sweep that a stage would continue: its own, or one of the same content. None if it would make a new one."""
    own = pipeline.stage_sweep(request.kind) if pipeline else None
    return own or (None if fresh else find_sweep(request.runs_dir, request.kind, request.key))
