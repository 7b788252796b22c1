"""Launching: plan the runs that are asked for, print the plan, or bring it to this machine or to SLURM."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jobs
from hpc import slurm, states
from hpc.cluster import Profile, choose_gres, load_profile
from hpc.inspection import log_folder
from hpc.plan import SubmitPlan, make_plan
from src.cli import EXIT_STOPPED
from src.config import Config
from src.errors import ClusterError, RunError
from src.foreground import command_line, prepare_images
from src.progress import make_reporter
from src.results import collect
from src.rundir import RunDir, SweepDir
from src.sweeps import Request, find_sweep, open_sweep


def launch(kind: str, config: Config, cluster: str | None, *, dry_run: bool, fresh: bool, **options: Any) -> None:
    """Plan the runs that are asked for, and submit those that are neither done nor in flight."""
    profile_name, profile = load_profile(cluster)
    request = jobs.request_of(kind, config, **options)
    if dry_run:
        _print_plan(request, profile_name, profile, fresh=fresh)
        return
    site = None if profile.executor == "local" else _ask_site(profile_name, profile)
    prepare_images(request)
    sweep, new = open_sweep(request, fresh=fresh)
    runs = sweep.runs()
    done = sum(run.result() is not None for run in runs)
    print(
        f"{sweep.path}: " + (f"new, {len(runs)} runs" if new else f"continued, {done} of {len(runs)} runs are done"),
        flush=True,
    )
    if site is None:
        _run_here(sweep, profile, config)
    else:
        _submit_missing(sweep, profile, site, config)


def _ask_site(profile_name: str, profile: Profile) -> tuple[str | None, int]:
    """The slice by its name here, and the largest array; asked once, before anything is written."""
    try:
        return choose_gres(profile), slurm.max_array_size()
    except ClusterError as error:
        raise ClusterError(
            f"{error}\n(profile {profile_name}; to run on this machine instead: --cluster local, or make CLUSTER=local)"
        ) from None


def _run_here(sweep: SweepDir, profile: Profile, config: Config) -> None:
    from hpc.local import LocalPool

    runs = [run for run in sweep.runs() if run.result() is None]
    if runs:
        with make_reporter() as reporter:
            complete = LocalPool(profile, log_folder(config, sweep), reporter).execute(runs)
        if not complete:
            print(f"stopped; to go on: {command_line()}", file=sys.stderr, flush=True)
            sys.exit(EXIT_STOPPED)
    collect(sweep, Path(config.paths.artifacts_dir))
    failed = [run for run in runs if run.result() is None]
    if failed:
        names = ", ".join(run.name for run in failed[:5])
        reasons = [str(last["error"]) for run in failed for last in run.attempts()[-1:] if "error" in last]
        raise RunError(
            f"{len(failed)} of {len(sweep.runs())} runs are not done ({names}); "
            f"python -m hpc.launch logs {failed[0].label} shows more" + (f"\n{reasons[0]}" if reasons else "")
        )


def _submit_missing(sweep: SweepDir, profile: Profile, site: tuple[str | None, int], config: Config) -> None:
    from hpc.submit import in_queue, submit
    from src.sweeps import planning

    gres, size = site
    # One submitter at a time: who comes second sees the first one's jobs in the queue.
    with planning(sweep.path):
        queue = in_queue(sweep)
        missing = [run for run in sweep.runs() if run.result() is None and not _in_flight(queue, run)]
        flying = sum(states.in_flight(job.state) for job in queue.values())
        submitted = 0
        for part in _parts(missing, size):
            try:
                submission = submit(_plan(sweep, profile, config, part, gres), sweep)
            except ClusterError as error:
                if not submitted:
                    raise
                print(f"{error}\n{len(missing) - submitted} runs are left; the same command submits them later")
                break
            submitted += len(part)
            job = f"{submission.job_name}: job {submission.job_id}"
            print(f"submitted {len(part)} runs as {job} ({_shape(part, profile)})")
    done = len(sweep.runs()) - len(missing) - flying
    print(f"{done} done, {flying} in the queue before, {submitted} submitted")
    print(f"see how they stand: python -m hpc.launch status {sweep.name}")


def _parts(runs: Sequence[RunDir], size: int) -> list[Sequence[RunDir]]:
    """The runs in arrays of at most `size`."""
    return [runs[start : start + size] for start in range(0, len(runs), size)]


def _shape(runs: Sequence[RunDir], profile: Profile) -> str:
    many = f"one array of {len(runs)} tasks, at most {profile.max_parallel} at a time"
    return many if len(runs) > 1 else "one job"


def _in_flight(queue: dict[str, slurm.QueuedJob], run: RunDir) -> bool:
    return run.name in queue and states.in_flight(queue[run.name].state)


def _plan(
    sweep: SweepDir, profile: Profile, config: Config, runs: Sequence[RunDir], gres: str | None, ahead: int = 0
) -> SubmitPlan:
    """The next submission of a sweep, or the one `ahead` after it."""
    from hpc.submit import submissions

    paths = [run.path.absolute() for run in runs]
    number = len(submissions(sweep)) + 1 + ahead
    return make_plan(profile, gres, sweep.name, number, paths, log_folder(config, sweep))


def _print_plan(request: Request, profile_name: str, profile: Profile, *, fresh: bool) -> None:
    found = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
    sweep = found or SweepDir(request.runs_dir / request.name_at(datetime.now()))
    missing = [run for cell in request.cells if (run := sweep.run(cell.name)).result() is None]
    where = f"{sweep.path} ({'exists' if found else 'new'})"
    print(f"{len(request.cells)} runs of {request.kind} in {where}; {len(missing)} to do:")
    for cell in request.cells:
        print(f"  {cell.name}  {'' if sweep.run(cell.name) in missing else 'done'}".rstrip())
    if not missing:
        print("nothing is left to submit")
        return
    if profile.executor == "local":
        print(f"profile {profile_name}: on this machine, at most {profile.max_parallel} at a time")
        return
    try:
        gres, size = choose_gres(profile), slurm.max_array_size()
    except ClusterError as error:
        print(f"the site could not be asked, what follows takes the profile as it is: {error}", file=sys.stderr)
        gres, size = profile.gres or (profile.slice and f"gpu:{profile.slice}:1"), len(missing)
    for ahead, part in enumerate(_parts(missing, size)):
        text = _plan(sweep, profile, request.config, part, gres, ahead).sbatch_text
        print(f"profile {profile_name}: {_shape(part, profile)}; sbatch gets:\n\n{text}")
