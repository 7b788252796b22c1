"""Looking at runs and stopping them: status, logs, cancel."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hpc import slurm
from hpc.status import summary, sweep_status
from src.config import Config
from src.errors import ClusterError, RunError
from src.results import print_rows
from src.rundir import RunDir, SweepDir
from src.sweeps import sweeps


def log_folder(config: Config, sweep: SweepDir) -> Path:
    """Where SLURM's logs of a sweep go."""
    return Path(config.paths.logs_dir).absolute() / sweep.name


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
