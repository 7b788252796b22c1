"""Launch runs: plan them, then print the plan (a dry run) or execute it."""

from __future__ import annotations

from typing import Any

import jobs
from hpc.submission.dry_run import print_plan
from hpc.submission.execute import execute
from hpc.submission.forecast import cells_left, forecast_of, refuse_above, warn_of_memory, warn_of_short_lead
from hpc.submission.placement import choose_name, place, remember_profile
from hpc.submission.prepare import prepare_sweep
from hpc.submission.site import ask_site, check_job_folder
from hpc.submission.trust import check_sweep
from src import hints
from src.config.schema import Config
from src.runs.rundir import SweepDir
from src.runs.sweeps import describe_progress, find_sweep
from src.text import counted, shortlist


def launch(
    kind: str,
    config: Config,
    cluster: str | None,
    *,
    dry_run: bool = False,
    fresh: bool = False,
    new_code: bool = False,
    max_slice_hours: float | None = None,
    **options: Any,
) -> SweepDir | None:
    """Plan the requested runs and execute those that are neither done nor in the queue. Returns their sweep.

    `options` are those of the kind's request, such as `refined` for a grid. A dry run prints the plan, writes nothing,
    and returns None. Raises RunError if the forecast is above `max_slice_hours`, ClusterError if SLURM does not answer.
    """
    choose_name(config, cluster)  # First, for the messages of the request.
    request = jobs.request_of(kind, config, **options)
    existing = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
    placement = place(config, cluster, existing.meta() if existing else None)
    profile_name, profile = placement.name, placement.profile
    left = cells_left(request, existing)
    forecast = forecast_of(request, left, profile)
    check_job_folder(request.runs_dir)
    if dry_run:
        print_plan(request, existing, placement, new_code=new_code)
        if left:
            print(forecast)
            warn_of_short_lead(profile, forecast)
            warn_of_memory(profile, forecast)
            refuse_above(max_slice_hours, forecast)
        return None
    if existing:
        check_sweep(existing)
    refuse_above(max_slice_hours, forecast)
    warn_of_short_lead(profile, forecast)
    warn_of_memory(profile, forecast)
    # Only now: this may load a checkpoint with torch, and a dry run must stay fast.
    jobs.check(request)
    site = None if profile.executor == "local" else ask_site(profile_name, profile)
    sweep, new = prepare_sweep(request, fresh=fresh, new_code=new_code)
    undone = [run.name for run in sweep.runs() if not run.is_done()]
    if undone:
        print(f"{sweep.path}: {describe_progress(sweep, new=new)}; {placement}", flush=True)
        if kind == "compare":
            print(f"compare trains {counted(len(undone), 'run')} in full: {shortlist(undone)}", flush=True)
        print(forecast, flush=True)
        remember_profile(sweep, profile_name)
    else:
        used = sweep.meta()["call"].get("cluster")
        start_over = f"to run it again from the start on profile {profile_name}: {hints.again('--fresh')}"
        print(f"{sweep.path}: done before{f', on profile {used}' if used else ''}; {start_over}", flush=True)
    execute(sweep, profile, site, config)
    return sweep
