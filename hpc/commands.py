"""Launching: plan the runs that are asked for, print the plan, or bring it to this machine or to SLURM."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jobs
from hpc import slurm
from hpc.cluster import Profile, choose_gres, load_profile
from hpc.forecast import forecast_of, refuse_above, warn_of_short_lead
from hpc.freeze import freeze, frozen_path
from hpc.inspection import find_named, log_folder
from hpc.plan import SubmitPlan, job_name, make_plan
from hpc.stock import Stock, give_budgets_back, last_cause, refusals_by_word, take_stock
from src.cli import EXIT_STOPPED
from src.config import Config, make_config
from src.errors import ClusterError, RunError
from src.foreground import command_line, prepare_images
from src.progress import make_reporter
from src.results import collect
from src.rundir import RunDir, SweepDir
from src.sweeps import Request, find_sweep, open_sweep

# Of a user, an account or a QOS: how many jobs may be submitted (slurm.schedmd.com/resource_limits.html).
_SUBMIT_LIMIT = re.compile(r"MaxSubmit|GrpSubmit|accounting/QOS policy|submit limit|job count", re.I)


@dataclass(frozen=True)
class Site:
    """What a launch needs to know of a site: the slice by its name there, and the largest array."""

    gres: str | None
    array_size: int


def launch(
    kind: str,
    config: Config,
    cluster: str | None,
    *,
    dry_run: bool = False,
    fresh: bool = False,
    max_slice_hours: float | None = None,
    **options: Any,
) -> SweepDir | None:
    """Plan the runs that are asked for, and submit those that are neither done nor in flight. Returns their sweep."""
    profile_name, profile = load_profile(cluster)
    request = jobs.request_of(kind, config, **options)
    found = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
    left = [cell for cell in request.cells if not (found and found.run(cell.name).result())]
    forecast = forecast_of(request, left, profile)
    if dry_run:
        _print_plan(request, found, profile_name, profile)
        print(forecast)
        warn_of_short_lead(profile, forecast)
        return None
    refuse_above(max_slice_hours, forecast)
    warn_of_short_lead(profile, forecast)
    site = None if profile.executor == "local" else ask_site(profile_name, profile)
    prepare_images(request)
    sweep, new = open_sweep(request, fresh=fresh)
    done = 0 if new else sum(run.result() is not None for run in sweep.runs())
    count = len(request.cells)
    print(
        f"{sweep.path}: " + (f"new, {count} runs" if new else f"continued, {done} of {count} runs are done"), flush=True
    )
    if done < count:
        print(forecast, flush=True)
    execute(sweep, profile, site, config)
    return sweep


def execute(
    sweep: SweepDir, profile: Profile, site: Site | None, config: Config, only: Collection[str] | None = None
) -> None:
    """Bring what is missing of a sweep (of the runs `only`) to this machine, where there is no site, or to SLURM."""
    if site is None:
        _run_here(sweep, profile, config, only)
    else:
        _submit_missing(sweep, profile, site, config, only)


def retry(config: Config, name: str | None, cluster: str | None, cause: str | None) -> None:
    """Give failed runs their budgets back, and submit them again. Raises RunError where there are none."""
    from hpc.submit import in_queue

    sweep, run = find_named(config, name)
    profile_name, profile = load_profile(cluster)
    site = None if profile.executor == "local" else ask_site(profile_name, profile)
    stock = take_stock(sweep, in_queue(sweep) if site else {})
    failed = [r for r in stock.failed() if run in (None, r)]
    chosen = [r for r in failed if cause is None or cause.upper() in (last_cause(r), _word(stock, r))]
    if not chosen:
        causes = ", ".join(sorted({str(last_cause(r)) for r in failed})) or "none"
        raise RunError(
            f"{run.label if run else sweep.name}: no failed run"
            + (
                f" with --cause {cause}; causes here: {causes}"
                if cause
                else "; what is missing: the same command again"
            )
        )
    give_budgets_back(chosen, round(time.time(), 3))
    print(f"{sweep.path}: {len(chosen)} failed runs get their budgets back", flush=True)
    # Their own configuration says where logs and tables go.
    own = make_config(sweep.meta()["config"], str(sweep.meta_file))
    execute(sweep, profile, site, own, [r.name for r in chosen])


def _word(stock: Stock, run: RunDir) -> str | None:
    return stock.refused[run].word if run in stock.refused else None


def ask_site(profile_name: str, profile: Profile) -> Site:
    """Asked once, before anything is written. Raises ClusterError."""
    try:
        return Site(choose_gres(profile), slurm.max_array_size())
    except ClusterError as error:
        raise ClusterError(
            f"{error}\n(profile {profile_name}; to run on this machine instead: --cluster local, or make CLUSTER=local)"
        ) from None


def _run_here(sweep: SweepDir, profile: Profile, config: Config, only: Collection[str] | None) -> None:
    from hpc.local import LocalPool

    stock = take_stock(sweep, {})
    runs = [run for run in (*stock.missing, *stock.elsewhere) if only is None or run.name in only]
    if runs:
        with make_reporter() as reporter:
            complete = LocalPool(profile, log_folder(config, sweep), reporter, freeze(sweep.code)).execute(runs)
        if not complete:
            print(f"stopped; to go on: {command_line()}", file=sys.stderr, flush=True)
            sys.exit(EXIT_STOPPED)
    collect(sweep, Path(config.paths.artifacts_dir))
    left = take_stock(sweep, {})
    if left.refused or left.missing:
        first = next(iter([*left.refused, *left.missing]))
        raise RunError(
            f"{len(left.refused) + len(left.missing)} of {len(sweep.runs())} runs are not done; "
            f"python -m hpc.launch logs {first.label} shows more\n{refusals_by_word(left.refused)}".rstrip()
        )


def _submit_missing(
    sweep: SweepDir, profile: Profile, site: Site, config: Config, only: Collection[str] | None
) -> None:
    from hpc.submit import in_queue
    from src.sweeps import planning

    # One submitter at a time: who comes second sees the first one's jobs in the queue.
    with planning(sweep.path):
        stock = take_stock(sweep, in_queue(sweep))
        missing = [run for run in stock.missing if only is None or run.name in only]
        submitted = _submit_all(missing, sweep, profile, site, config) if missing else 0
    print(f"{len(stock.done)} done, {len(stock.flying)} in the queue before, {submitted} submitted")
    if stock.elsewhere:
        print(f"{len(stock.elsewhere)} are being executed by processes outside of SLURM")
    if stock.refused:
        print(f"{len(stock.refused)} failed and are not submitted again by themselves:")
        print(refusals_by_word(stock.refused))
    print(f"see how they stand: python -m hpc.launch status {sweep.name}")


def _submit_all(runs: Sequence[RunDir], sweep: SweepDir, profile: Profile, site: Site, config: Config) -> int:
    """Submit as many of the runs as the site takes. Returns their number; raises ClusterError where it takes none."""
    from hpc.submit import submit

    code = freeze(sweep.code)
    tasks, size, submitted = _tasks(runs, profile), max(1, site.array_size), 0
    while tasks:
        part = tasks[:size]
        try:
            made = submit(_plan(sweep, profile, site, config, part, code), sweep)
        except ClusterError as error:
            # The limit may leave room for fewer: a few calls more, whatever the number of runs.
            if _SUBMIT_LIMIT.search(str(error)) and len(part) > 1:
                size = len(part) // 2
                continue
            if not submitted:
                raise
            print(f"{error}\n{len(runs) - submitted} runs are left; the same command submits them later")
            break
        count = sum(len(each) for each in part)
        submitted += count
        print(f"submitted {count} runs as {made.job_name}: job {made.job_id} ({_shape(part, profile)})", flush=True)
        tasks = tasks[len(part) :]
    return submitted


def _tasks(runs: Sequence[RunDir], profile: Profile) -> list[Sequence[RunDir]]:
    """The runs as tasks of `cells_per_job`."""
    each = profile.cells_per_job
    return [runs[start : start + each] for start in range(0, len(runs), each)]


def _shape(tasks: Sequence[Sequence[RunDir]], profile: Profile) -> str:
    many = f"one array of {len(tasks)} tasks, at most {profile.max_parallel} at a time"
    each = f", up to {profile.cells_per_job} runs in each" if profile.cells_per_job > 1 else ""
    return (many if len(tasks) > 1 else "one job") + each


def _plan(
    sweep: SweepDir,
    profile: Profile,
    site: Site,
    config: Config,
    tasks: Sequence[Sequence[RunDir]],
    code: Path,
    ahead: int = 0,
) -> SubmitPlan:
    """The next submission of a sweep, or the one `ahead` after it."""
    from hpc.submit import submissions

    paths = [[run.path.absolute() for run in runs] for runs in tasks]
    name = job_name(sweep.name, len(submissions(sweep)) + 1 + ahead)
    return make_plan(profile, site.gres, name, paths, log_folder(config, sweep), code)


def _print_plan(request: Request, found: SweepDir | None, profile_name: str, profile: Profile) -> None:
    sweep = found or SweepDir(request.runs_dir / request.name_at(datetime.now()))
    missing = [run for cell in request.cells if (run := sweep.run(cell.name)).result() is None]
    where = f"{sweep.path} ({'exists' if found else 'new'})"
    print(f"{len(request.cells)} runs of {request.kind} in {where}; {len(missing)} to do:")
    todo = {run.name for run in missing}
    for cell in request.cells:
        print(f"  {cell.name}  {'' if cell.name in todo else 'done'}".rstrip())
    if not missing:
        print("nothing is left to submit")
        return
    if profile.executor == "local":
        print(f"profile {profile_name}: on this machine, at most {profile.max_parallel} at a time")
        return
    try:
        site = Site(choose_gres(profile), slurm.max_array_size())
    except ClusterError as error:
        print(f"the site could not be asked, what follows takes the profile as it is: {error}", file=sys.stderr)
        site = Site(profile.gres or (profile.slice and f"gpu:{profile.slice}:1"), len(missing))
    tasks, size = _tasks(missing, profile), max(1, site.array_size)
    for ahead, start in enumerate(range(0, len(tasks), size)):
        part = tasks[start : start + size]
        text = _plan(sweep, profile, site, request.config, part, frozen_path(sweep.code), ahead).sbatch_text
        print(f"profile {profile_name}: {_shape(part, profile)}; sbatch gets:\n\n{text}")
