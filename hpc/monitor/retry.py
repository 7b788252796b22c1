"""Run failed runs again: reset their budgets and submit them."""

from __future__ import annotations

import time
from pathlib import Path

from hpc.monitor.failed_runs import failed_runs
from hpc.pipeline.names import resolve_stage_name
from hpc.recovery.reconcile import reset_budgets
from hpc.submission.execute import execute
from hpc.submission.placement import place, remember_profile
from hpc.submission.prepare import choose_code
from hpc.submission.site import ask_site
from hpc.submission.trust import check_sweep
from src import hints
from src.config.loading import make_config
from src.config.schema import Config
from src.runs.names import find_named, print_names
from src.text import counted


def retry(config: Config, name: str | None, cluster: str | None, cause: str | None, *, new_code: bool = False) -> None:
    """Reset the budgets of failed runs and submit them again.

    The runs are those of the sweep `name`, or the one run that it names; with `cause`, only those that failed for it.
    `cluster`: a profile, if not the sweep's own. Raises RunError if there are no such runs.
    """
    runs_dir = Path(config.paths.runs_dir)
    sweep, run = find_named(runs_dir, resolve_stage_name(runs_dir, name))
    check_sweep(sweep)  # Before the hints, which should name this command.
    hints.use(sweep.meta())
    placement = place(config, cluster, sweep.meta())
    profile_name, profile = placement.name, placement.profile
    # Before anything is written: a site that refuses must leave the budgets as they are.
    site = None if profile.executor == "local" else ask_site(profile_name, profile)
    chosen = failed_runs(sweep, run, cause, on_slurm=site is not None)
    # Before the budgets are reset: a sweep whose code cannot be started must keep them.
    choose_code(sweep, new_code=new_code)
    remember_profile(sweep, profile_name)
    reset_budgets(chosen, round(time.time(), 3))
    print(
        f"{sweep.path}: budgets reset for {counted(len(chosen), 'failed run')}, on profile {profile_name}:", flush=True
    )
    print_names(chosen)
    # The sweep's own configuration says where its logs and tables go; the user's file may have changed since.
    own_config = make_config(sweep.meta()["config"], str(sweep.meta_file))
    execute(sweep, profile, site, own_config, [run.name for run in chosen])
