"""Start a pipeline: check and forecast every stage, make the directory, then advance to the first wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc.pipeline.advance import advance
from hpc.pipeline.directory import STAGES, Pipeline, find_same_pipeline, make_pipeline
from hpc.submission.forecast import forecast_of, refuse_above, total_of, unfinished_cells
from hpc.submission.placement import place
from hpc.submission.prepare import prepare_inputs
from hpc.submission.site import check_job_folder
from hpc.submission.trust import check_folder, check_sweep
from hpc.works import PIPELINE, work_of
from relay.runs.code_snapshot import change_since, new_code_hint
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request, find_sweep


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
