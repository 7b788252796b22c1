"""Launch runs: plan them, then print the plan (a dry run) or execute it."""

from __future__ import annotations

from typing import Any

import jobs
from hpc.submission.dry_run import print_plan
from hpc.submission.execute import execute
from hpc.submission.forecast import cells_left, forecast_of, refuse_above, warn_of_memory, warn_of_short_lead
from hpc.submission.prepare import prepare_sweep
from hpc.submission.profile import profile_of, remember_profile
from hpc.submission.site import ask_site, check_job_folder
from src import hints
from src.config.schema import Config
from src.runs.rundir import SweepDir
from src.runs.sweeps import find_sweep
from src.text import counted


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
    request = jobs.request_of(kind, config, **options)
    existing = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
    profile_name, profile = profile_of(existing, cluster)
    left = cells_left(request, existing)
    forecast = forecast_of(request, left, profile)
    check_job_folder(request.runs_dir)
    if dry_run:
        print_plan(request, existing, profile_name, profile, new_code=new_code)
        if left:
            print(forecast)
            warn_of_short_lead(profile, forecast)
            warn_of_memory(profile, forecast)
            refuse_above(max_slice_hours, forecast)
        return None
    refuse_above(max_slice_hours, forecast)
    warn_of_short_lead(profile, forecast)
    warn_of_memory(profile, forecast)
    # Only now: this may load a checkpoint with torch, and a dry run must stay fast.
    jobs.check(request)
    site = None if profile.executor == "local" else ask_site(profile_name, profile)
    sweep, new = prepare_sweep(request, fresh=fresh, new_code=new_code)
    done = 0 if new else sum(run.is_done() for run in sweep.runs())
    count = len(request.cells)
    if done < count:
        state = f"new, {counted(count, 'run')}" if new else f"continued, {done} of {count} runs are done"
        print(f"{sweep.path}: {state}; profile {profile_name}", flush=True)
        print(forecast, flush=True)
        remember_profile(sweep, profile_name)
    else:
        used = sweep.meta().get("profile")
        start_over = f"to run it again from the start on profile {profile_name}: {hints.again('--fresh')}"
        print(f"{sweep.path}: done before{f', on profile {used}' if used else ''}; {start_over}", flush=True)
    execute(sweep, profile, site, config)
    return sweep
