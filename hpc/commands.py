"""Launching: plan the runs that are asked for, print the plan, or bring it to this machine or to SLURM."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jobs
from hpc import slurm
from hpc.arrays import ask_site, submit_missing
from hpc.cluster import Profile, choose_gres, profile_of, remember_profile
from hpc.forecast import forecast_of, refuse_above, warn_of_short_lead
from hpc.inspection import print_names
from hpc.logs import show_in_logs
from hpc.plan import Site, Target, check_job_folder, plan_arrays
from hpc.stages import name_of_stage
from hpc.stock import Stock, give_budgets_back, last_cause, refusals_by_word, take_stock
from hpc.submit import in_queue, next_number
from src import hints
from src.budgets import CAUSES
from src.cli import EXIT_STOPPED
from src.code_snapshot import code_change, code_digest, new_code_hint, sweep_code, use_new_code
from src.config import Config, make_config
from src.config_errors import nearest
from src.errors import ClusterError, RunError
from src.foreground import prepare_images
from src.log import log
from src.names import find_named
from src.progress import make_reporter
from src.results import collect
from src.rundir import RunDir, SweepDir
from src.sweeps import Request, find_sweep, open_sweep
from src.tables import counted


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
    """Plan the runs that are asked for, and submit those that are neither done nor in flight. Returns their sweep."""
    request = jobs.request_of(kind, config, **options)
    found = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
    profile_name, profile = profile_of(found, cluster)
    left = [cell for cell, run in zip(request.cells, _runs_of(request, found), strict=True) if not run.is_done()]
    forecast = forecast_of(request, left, profile)
    check_job_folder(request.runs_dir)
    if dry_run:
        _print_plan(request, found, profile_name, profile, new_code=new_code)
        if left:
            print(forecast)
            warn_of_short_lead(profile, forecast)
            refuse_above(max_slice_hours, forecast)
        return None
    refuse_above(max_slice_hours, forecast)
    warn_of_short_lead(profile, forecast)
    # Only here: it may read a checkpoint with torch, and a dry run must stay light.
    jobs.check(request)
    site = None if profile.executor == "local" else ask_site(profile_name, profile)
    request = prepare_images(request)
    sweep, new = open_sweep(request, fresh=fresh)
    if not new:
        choose_code(sweep, new_code=new_code)
    done = 0 if new else sum(run.is_done() for run in sweep.runs())
    count = len(request.cells)
    if done < count:
        word = f"new, {counted(count, 'run')}" if new else f"continued, {done} of {count} runs are done"
        print(f"{sweep.path}: {word}; profile {profile_name}", flush=True)
        print(forecast, flush=True)
        remember_profile(sweep, profile_name)
    else:
        _say_done(sweep, profile_name)
    execute(sweep, profile, site, config)
    return sweep


def _say_done(sweep: SweepDir, profile_name: str) -> None:
    where = sweep.meta().get("profile")
    anew = f"to do it anew on profile {profile_name}: {hints.again('--fresh')}"
    print(f"{sweep.path}: done before{f', on profile {where}' if where else ''}; {anew}", flush=True)


def execute(
    sweep: SweepDir,
    profile: Profile,
    site: Site | None,
    config: Config,
    only: Collection[str] | None = None,
    *,
    by_user: bool = True,
) -> None:
    """Bring what is missing of a sweep (of the runs `only`) to this machine, where there is no site, or to SLURM.

    What its user has cancelled is left alone unless this is a command `by_user`.
    """
    if site is None:
        _run_here(sweep, profile, config, only)
    else:
        submit_missing(sweep, profile, site, config, only, by_user=by_user)


def choose_code(sweep: SweepDir, *, new_code: bool, root: Path | None = None) -> None:
    """A sweep goes on with the code that it was made with, unless its user asks for `new_code`; one line says which.

    `root`: the code that it is compared with, if not that of this process. Raises RunError where its own is gone.
    """
    change = code_change(sweep, root)
    if not (change or new_code):
        return
    if all(run.is_done() for run in sweep.runs()):
        if change:
            print(
                f"{sweep.path}: done before, with other code: {change}; to do it anew: {hints.again('--fresh')}",
                flush=True,
            )
    elif new_code:
        print(f"goes on with the code as it is now, snapshot {use_new_code(sweep).name}", flush=True)
    else:
        sweep_code(sweep)
        print(f"goes on with the code that it was made with; {change}; {new_code_hint()}", flush=True)


def _code_to_use(sweep: SweepDir, *, new_code: bool) -> Path:
    kept = sweep.meta().get("snapshot") if sweep.meta_file.is_file() and not new_code else None
    return (sweep.code / str(kept or code_digest())).absolute()


def retry(config: Config, name: str | None, cluster: str | None, cause: str | None, *, new_code: bool = False) -> None:
    """Give failed runs their budgets back, and submit them again. Raises RunError where there are none."""
    runs_dir = Path(config.paths.runs_dir)
    sweep, run = find_named(runs_dir, name_of_stage(runs_dir, name))
    hints.use(sweep.meta())
    profile_name, profile = profile_of(sweep, cluster)
    site = None if profile.executor == "local" else ask_site(profile_name, profile)
    stock = take_stock(sweep, in_queue(sweep) if site else {})
    if run in stock.refused and stock.refused[run].damaged:
        raise RunError(stock.refused[run].detail)
    failed = [r for r in stock.failed() if run in (None, r)]
    chosen = [r for r in failed if cause is None or cause.upper() in (last_cause(r), _word(stock, r))]
    if not chosen:
        raise RunError(f"{run.label if run else sweep.name}: no failed run{_why_none(stock, failed, cause)}")
    remember_profile(sweep, profile_name)
    hints.use(sweep.meta())
    give_budgets_back(chosen, round(time.time(), 3))
    theirs = "gets its budgets" if len(chosen) == 1 else "get their budgets"
    print(f"{sweep.path}: {counted(len(chosen), 'failed run')} {theirs} back, on profile {profile_name}:", flush=True)
    print_names(chosen)
    choose_code(sweep, new_code=new_code)
    # Their own configuration says where logs and tables go.
    own = make_config(sweep.meta()["config"], str(sweep.meta_file))
    execute(sweep, profile, site, own, [r.name for r in chosen])


def _why_none(stock: Stock, failed: Sequence[RunDir], cause: str | None) -> str:
    """What there is in place of failed runs."""
    if cause:
        causes = ", ".join(sorted({str(last_cause(run)) for run in failed})) or "none"
        return f" with --cause {cause}{nearest(cause.upper(), CAUSES)}; causes here: {causes}"
    others = {
        "done": stock.done,
        "in the queue": stock.flying,
        "executed by processes outside of SLURM": stock.elsewhere,
    }
    words = [f"{len(runs)} {word}" for word, runs in others.items() if runs]
    if stock.missing or stock.cancelled:
        words.append(f"{len(stock.missing) + len(stock.cancelled)} to be submitted with: {hints.again()}")
    return f"; {', '.join(words)}"


def _word(stock: Stock, run: RunDir) -> str | None:
    return stock.refused[run].word if run in stock.refused else None


def _run_here(sweep: SweepDir, profile: Profile, config: Config, only: Collection[str] | None) -> None:
    from hpc.local import LocalPool

    stock = take_stock(sweep, {})
    runs = [run for run in (*stock.missing, *stock.cancelled, *stock.elsewhere) if only is None or run.name in only]
    for run in runs:
        run.lift_cancel()
    if runs:
        show_in_logs(config, sweep.jobs)
        with make_reporter() as reporter:
            complete = LocalPool(profile, sweep.jobs.absolute(), reporter, sweep_code(sweep)).execute(runs)
        if not complete:
            log.info(f"stopped; to go on: {hints.again()}")
            sys.exit(EXIT_STOPPED)
    collect(sweep, Path(config.paths.artifacts_dir))
    left = take_stock(sweep, {})
    undone = [*left.refused, *left.cancelled, *left.missing]
    if undone:
        first = undone[0]
        more = f"to see more: {hints.command('hpc.launch', 'logs', first.label)}"
        raise RunError(
            f"{len(undone)} of {len(sweep.runs())} runs are not done; {more}\n{refusals_by_word(left.refused)}".rstrip()
        )


def _runs_of(request: Request, found: SweepDir | None) -> list[RunDir]:
    """The runs of the sweep that was found, under its own names; else those that a new one would have."""
    if found:
        return found.runs()
    sweep = SweepDir(request.runs_dir / request.name_at(datetime.now()))
    return [sweep.run(cell.name) for cell in request.cells]


def _print_plan(
    request: Request, found: SweepDir | None, profile_name: str, profile: Profile, *, new_code: bool
) -> None:
    runs = _runs_of(request, found)
    sweep, undone = runs[0].sweep(), [run for run in runs if not run.is_done()]
    site, queue = _ask_for_plan(found, profile, len(undone)) if undone and profile.executor == "slurm" else (None, {})
    words = {run: "in the queue" if run.name in queue else "" for run in undone}
    missing = [run for run, word in words.items() if not word]
    where = f"{sweep.path} ({'exists' if found else 'new'})"
    print(f"{counted(len(request.cells), 'run')} of {request.kind} in {where}; {len(missing)} to do:")
    for run in runs:
        print(f"  {run.name}  {words.get(run, 'done')}".rstrip())
    if not missing:
        print("nothing is left to submit")
        return
    if site is None:
        print(f"profile {profile_name}: on this machine, at most {profile.max_parallel} at a time")
        return
    target = Target(sweep, profile, site, _code_to_use(sweep, new_code=new_code))
    tasks = {job.job_id for jobs in queue.values() for job in jobs}
    plans = plan_arrays(
        target, missing, next_number(sweep), len(tasks), sorted({id_.partition("_")[0] for id_ in tasks})
    )
    ids = {plan.job_name: f"<the id of {plan.job_name}>" for plan in plans}
    for plan in plans:
        print(f"profile {profile_name}: {plan}; sbatch gets:\n\n{plan.with_ids(ids).sbatch_text}")


def _ask_for_plan(found: SweepDir | None, profile: Profile, runs: int) -> tuple[Site, slurm.Queue]:
    """What the launch would be told; where nobody answers, the profile as it is, and arrays of any size."""
    try:
        return Site(choose_gres(profile), slurm.max_array_size()), in_queue(found) if found else {}
    except ClusterError as error:
        log.warning(f"the site could not be asked, what follows takes the profile as it is: {error}")
        return Site(profile.gres or (profile.slice and f"gpu:{profile.slice}:1"), runs), {}
