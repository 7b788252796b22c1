"""What the launcher's commands do, once their options are read."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jobs
from hpc import slurm, states
from hpc.cluster import Profile, choose_gres, load_profile
from hpc.plan import SubmitPlan, make_plan
from hpc.status import summary, sweep_status
from src.cli import EXIT_STOPPED
from src.config import Config
from src.errors import ClusterError, RunError
from src.foreground import command_line
from src.progress import make_reporter
from src.results import collect, print_rows
from src.rundir import RunDir, SweepDir
from src.sweeps import Request, find_sweep, open_sweep, sweeps


def launch(kind: str, config: Config, cluster: str | None, *, dry_run: bool, fresh: bool, **options: Any) -> None:
    """Plan the runs that are asked for, and submit those that are neither done nor in flight."""
    profile_name, profile = load_profile(cluster)
    request = jobs.request_of(kind, config, **options)
    if dry_run:
        _print_plan(request, profile_name, profile, fresh=fresh)
        return
    _prepare_images(request)
    sweep, new = open_sweep(request, fresh=fresh)
    runs = sweep.runs()
    done = sum(run.result() is not None for run in runs)
    print(
        f"{sweep.path}: " + (f"new, {len(runs)} runs" if new else f"continued, {done} of {len(runs)} runs are done"),
        flush=True,
    )
    if profile.executor == "local":
        _run_here(sweep, profile, config)
    else:
        _submit_missing(sweep, profile, config)


def log_folder(config: Config, sweep: SweepDir) -> Path:
    """Where SLURM's logs of a sweep go."""
    return Path(config.paths.logs_dir).absolute() / sweep.name


def _prepare_images(request: Request) -> None:
    """Decode the images here, since compute nodes often have no network."""
    from src.data import prepare

    with make_reporter() as reporter:
        prepare(request.config, reporter.say)


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
        raise RunError(
            f"{len(failed)} of {len(sweep.runs())} runs are not done ({names}); "
            f"python -m hpc.launch logs {failed[0].label} shows why"
        )


def _submit_missing(sweep: SweepDir, profile: Profile, config: Config) -> None:
    from hpc.submit import in_queue, submit
    from src.sweeps import planning

    # One submitter at a time: who comes second sees the first one's jobs in the queue.
    with planning(sweep.path):
        queue = in_queue(sweep)
        missing = [run for run in sweep.runs() if run.result() is None and not _in_flight(queue, run)]
        flying = sum(states.in_flight(job.state) for job in queue.values())
        if missing:
            plan = _plan(sweep, profile, config, missing)
            submission = submit(plan, sweep)
            kind = f"array of {len(missing)}, at most {profile.max_parallel} at a time" if len(missing) > 1 else "job"
            print(f"submitted {len(missing)} runs as {submission.job_name}: job {submission.job_id} ({kind})")
    print(f"{len(sweep.runs()) - len(missing) - flying} done, {flying} in the queue before, {len(missing)} submitted")
    print(f"see how they stand: python -m hpc.launch status {sweep.name}")


def _in_flight(queue: dict[str, slurm.QueuedJob], run: RunDir) -> bool:
    return run.name in queue and states.in_flight(queue[run.name].state)


def _plan(sweep: SweepDir, profile: Profile, config: Config, runs: Sequence[RunDir]) -> SubmitPlan:
    from hpc.submit import submissions

    paths = [run.path.absolute() for run in runs]
    number = len(submissions(sweep)) + 1
    return make_plan(profile, choose_gres(profile), sweep.name, number, paths, log_folder(config, sweep))


def _print_plan(request: Request, profile_name: str, profile: Profile, *, fresh: bool) -> None:
    found = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
    sweep = found or SweepDir(request.runs_dir / request.name_at(datetime.now()))
    missing = [run for cell in request.cells if (run := sweep.run(cell.name)).result() is None]
    where = f"{sweep.path} ({'exists' if found else 'new'})"
    print(f"{len(request.cells)} runs of {request.kind} in {where}; {len(missing)} to do:")
    for cell in request.cells:
        print(f"  {cell.name}  {'' if sweep.run(cell.name) in missing else 'done'}".rstrip())
    if not missing:
        return
    if profile.executor == "local":
        print(f"profile {profile_name}: on this machine, at most {profile.max_parallel} at a time")
        return
    plan = _plan(sweep, profile, request.config, missing)
    what = (
        f"one array of {len(missing)} tasks, at most {profile.max_parallel} at a time"
        if len(missing) > 1
        else "one job"
    )
    print(f"profile {profile_name}: {what}; sbatch gets:\n\n{plan.sbatch_text}")


def find_named(config: Config, name: str | None) -> tuple[SweepDir, RunDir | None]:
    """The sweep (and run) that a name, or a part of one, stands for; the newest sweep where there is no name.

    Raises RunError where nothing has it, naming what there is.
    """
    runs_dir = Path(config.paths.runs_dir)
    known = sweeps(runs_dir)
    if not known:
        raise RunError(f"{runs_dir}: there are no runs yet; start some with make grid or make train")
    if not name:
        return known[-1], None
    sweep_part, _, run_part = name.strip("/").removeprefix(f"{config.paths.runs_dir}/").rpartition("/")
    fitting = [sweep for sweep in known if (sweep_part or run_part) in sweep.name]
    if fitting and (not sweep_part or not run_part):
        return fitting[-1], None
    for sweep in reversed(fitting if sweep_part else known):
        for run in sweep.runs():
            if run_part in run.name:
                return sweep, run
    raise RunError(
        f"{name!r}: no sweep and no run has that in its name; sweeps: {', '.join(s.name for s in known[-8:])}"
    )


def _queue_of(made: Sequence[SweepDir]) -> dict[Path, dict[str, slurm.QueuedJob]]:
    """Sweep path -> run name -> queued task; one question for all of them, none where nothing was submitted."""
    from hpc.submit import match_queue, submissions

    by_sweep = {sweep.path: submissions(sweep) for sweep in made}
    names = [submission.job_name for subs in by_sweep.values() for submission in subs]
    queue = slurm.queued(names)
    return {path: match_queue(subs, queue) for path, subs in by_sweep.items()}


def show_status(config: Config, name: str | None, cluster: str | None) -> None:
    """A table of the runs, from disk and one question to the scheduler."""
    sweep, run = find_named(config, name)
    try:
        queue = _queue_of([sweep])[sweep.path]
    except ClusterError as error:
        print(f"the scheduler could not be asked, what follows is from disk alone: {error}", file=sys.stderr)
        queue = {}
    rows = [row for row in sweep_status(sweep, queue) if run is None or row["run"] == run.name]
    print_rows(rows, sweep.name)
    print(summary(rows))


def cancel_runs(config: Config, name: str) -> None:
    """Stop what waits or runs of a run, a sweep, or everything."""
    chosen = (
        [(sweep, None) for sweep in sweeps(Path(config.paths.runs_dir))]
        if name == "all"
        else [find_named(config, name)]
    )
    queues = _queue_of([sweep for sweep, _ in chosen])
    ids, told = [], 0
    for sweep, chosen_run in chosen:
        queue = queues[sweep.path]
        for run in [chosen_run] if chosen_run else sweep.runs():
            if run.name in queue:
                ids.append(queue[run.name].job_id)
            else:
                told += _stop_local(run)
    slurm.cancel(ids)
    print(f"cancelled {len(ids) + told} tasks" if ids or told else "nothing of it waits or runs")


def _stop_local(run: RunDir) -> bool:
    """Tell a worker of this machine to save and end; True where there was one."""
    attempts = run.attempts()
    if not attempts or "end" in attempts[-1] or not run.claimed():
        return False
    if attempts[-1].get("node") != socket.gethostname():
        return False
    try:
        os.kill(int(attempts[-1]["pid"]), signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        print(f"{run.label}: process {attempts[-1]['pid']} of {getpass.getuser()} cannot be told", file=sys.stderr)
        return False
    return True


def show_logs(config: Config, name: str | None, *, follow: bool) -> None:
    """Print the log files of all jobs of a run (of a sweep's only run, where it has one); `follow` goes on."""
    sweep, run = find_named(config, name)
    runs = sweep.runs()
    chosen = run or (runs[0] if len(runs) == 1 else None)
    if chosen is None:
        raise RunError(f"{sweep.name}: has {len(runs)} runs; name one, for example: logs {runs[0].label}")
    seen: dict[Path, int] = {}
    while True:
        for path in _log_files(log_folder(config, sweep), chosen):
            with path.open("rb") as file:
                file.seek(seen.get(path, 0))
                sys.stdout.write(file.read().decode(errors="replace"))
                seen[path] = file.tell()
        sys.stdout.flush()
        if not follow or chosen.result() is not None:
            break
        time.sleep(1)
    if not seen:
        raise RunError(
            f"{chosen.label}: no job of it has started yet; python -m hpc.launch status {sweep.name} shows why"
        )


def _log_files(folder: Path, run: RunDir) -> list[Path]:
    ids = list(dict.fromkeys(str(attempt["job"]) for attempt in run.attempts() if attempt.get("job")))
    found = [folder / f"{job}_0_log.{suffix}" for job in ids for suffix in ("out", "err")]
    return [path for path in found if path.is_file()]
