"""Looking at runs and stopping them: status and cancel."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc import slurm
from hpc.chain import Chain, chains
from hpc.logs import last_words
from hpc.stages import (
    find_pipeline,
    name_of_stage,
    say_others,
    stop_going_on,
    sweeps_of,
    watch_pipeline,
)
from hpc.status import FINISHED, SweepStatus, sweep_status
from src import hints
from src.budgets import REQUEUED_AFTER
from src.config import Config
from src.errors import ClusterError, RunError
from src.log import log
from src.names import find_named
from src.rundir import RunDir, SweepDir
from src.sweeps import sweeps, with_whole_manifests
from src.tables import counted, print_rows, table_console, table_of

if TYPE_CHECKING:
    from rich.console import Console, Group

_WATCHED_ROWS = 40
_NAMES_SHOWN = 20
_NO_LOG = "no log: the task was cancelled before it started, or its folder was moved, deleted or full"


def _queue_of(made: Sequence[SweepDir]) -> tuple[dict[Path, slurm.Queue], list[slurm.QueuedJob]]:
    """Sweep path -> run name -> queued tasks, and all that SLURM knows; one question, none without submissions."""
    from hpc.submit import match_queue, submissions

    by_sweep = {sweep.path: submissions(sweep) for sweep in made}
    names = [submission.job_name for subs in by_sweep.values() for submission in subs]
    known = slurm.queued(names)
    return {path: match_queue(subs, known) for path, subs in by_sweep.items()}, known


def show_status(config: Config, name: str | None, watch_s: float | None = None) -> None:
    """A table of the runs, from disk and one question to the scheduler; `watch_s` shows it again after so many seconds,
    until nothing is on its way or Ctrl-C. Of a pipeline, its stages.
    """
    runs_dir = Path(config.paths.runs_dir)
    chain = find_pipeline(runs_dir, name)
    if chain:
        watch_pipeline(chain, watch_s)
        shown = chain.name
    else:
        sweep, run = find_named(runs_dir, name_of_stage(runs_dir, name))
        hints.use(sweep.meta())
        _show_sweep(config, sweep, run.name if run else None, watch_s)
        shown = sweep.name
    if name is None:
        say_others(runs_dir, shown)


def _show_sweep(config: Config, sweep: SweepDir, only: str | None, watch_s: float | None) -> None:
    console, width = table_console()
    if watch_s is None or not console.is_terminal:
        _print_sweep(config, sweep, only, watch_s)
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            found = _standing(config, sweep, only)
            title = f"{sweep.name}, {datetime.now():%H:%M:%S}"
            height = None if width is None else console.height
            live.update(_page(found, title, console, width, height), refresh=True)
            if not found.in_flight:
                break
            time.sleep(watch_s)


def _print_sweep(config: Config, sweep: SweepDir, only: str | None, watch_s: float | None) -> None:
    """Once, or page after page into a pipe or a file, until nothing is on its way."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            found = _standing(config, sweep, only)
            print_rows(found.rows, sweep.name if watch_s is None else f"{sweep.name}, {datetime.now():%H:%M:%S}")
            print(found.summary(), flush=True)
            if watch_s is None or not found.in_flight:
                break
            time.sleep(watch_s)


def _page(found: SweepStatus, title: str, console: Console, width: int | None, height: int | None) -> Group:
    """The table and the summary on one screen: what is over goes last, and out of sight first."""
    from rich.console import Group
    from rich.text import Text

    rows = sorted(found.rows, key=lambda row: row["state"] in FINISHED)
    # Text: rich would read the brackets of an error message as markup.
    summary = Text(found.summary())
    for count in range(min(len(rows), _WATCHED_ROWS), 0, -1):
        left = [Text(f"({len(rows) - count} more)")] if count < len(rows) else []
        page = Group(table_of(rows[:count], title, width), *left, summary)
        # A line stays free for the cursor, which would scroll the page.
        if height is None or len(console.render_lines(page, pad=False)) < height:
            return page
    return Group(summary)


def _standing(config: Config, sweep: SweepDir, only: str | None) -> SweepStatus:
    try:
        queues, known = _queue_of([sweep])
    except ClusterError as error:
        log.warning(f"the scheduler could not be asked, what follows is from disk alone: {error}")
        return sweep_status(sweep, {}, only)
    queue = queues[sweep.path]
    found = sweep_status(sweep, queue, only)
    cancelled = {job.job_id for job in known if job.state == "CANCELLED"}
    _explain_unstarted(found.rows, sweep, queue, config, cancelled)
    return found


def _explain_unstarted(
    rows: Sequence[dict[str, Any]], sweep: SweepDir, queue: slurm.Queue, config: Config, cancelled: Collection[str]
) -> None:
    """Runs whose newest task has left the queue without beginning an attempt: what its log says in the end, or that
    it was cancelled, which SLURM knows for a while.
    """
    from hpc.submit import last_tasks, submissions

    tasks = last_tasks(submissions(sweep))
    for row in rows:
        if (
            row["run"] not in tasks
            or row["run"] in queue
            or row["state"] in (*FINISHED, "running", "cancelled", "damaged")
        ):
            continue
        (task, submitted), attempts = tasks[row["run"]], sweep.run(row["run"]).attempts()
        last = attempts[-1] if attempts else {}
        begun = any(attempt.get("job") == task for attempt in attempts)
        # Since then without SLURM, on this machine, whose clock has timed the submission too.
        begun |= not last.get("cluster") and last.get("start", 0) > submitted
        # A task that was to come back has the same number as before.
        to_come_back = last.get("job") == task and last.get("cause") in REQUEUED_AFTER and last.get("cluster")
        if not begun or to_come_back:
            row |= {
                "state": "cancelled" if task in cancelled else "not started",
                "job": task,
                "error": last_words(config, sweep, task) or row["error"] or _NO_LOG,
            }


def cancel_runs(config: Config, name: str) -> None:
    """Stop what waits or runs of a run, a sweep, a pipeline or all; only a command of the user's starts it again."""
    if name.isdigit():
        raise RunError(f"cancel {name}: give a sweep, a run or all; a job by its number: scancel {name}")
    runs_dir = Path(config.paths.runs_dir)
    everything = name == "all"
    chain = None if everything else find_pipeline(runs_dir, name)
    # Before it is asked which sweeps the pipeline has: it must make no more.
    of_chain = stop_going_on(chain) if chain else []
    chosen = _asked_for(runs_dir, name, chain)
    runs = [run for sweep, only in chosen for run in ([only] if only else sweep.runs()) if not run.is_done()]
    # Before the question what is in the queue: what goes on by itself must not submit it again in between.
    for run in runs:
        run.cancel()
    queues, _ = _queue_of([sweep for sweep, _ in chosen])
    tasks = {run: queues[run.path.parent].get(run.name, ()) for run in runs}
    ids = list(dict.fromkeys(job.job_id for jobs in tasks.values() for job in jobs))
    ids += _jobs_of_chains(runs_dir) if everything else []
    slurm.cancel(ids)
    told = [run for run, jobs in tasks.items() if not jobs and _stop_local(run)]
    stopped = [*(run for run, jobs in tasks.items() if jobs), *told]
    labels = [only.label if only else sweep.name for sweep, only in chosen]
    where = chain.name if chain else labels[0] if len(labels) == 1 else counted(len(labels), "sweep")
    ids = [*of_chain, *ids]
    number = len(ids) + len(told)
    print(f"{where}: " + (f"cancelled {counted(number, 'task')}" if number else "nothing of it waits or runs"))
    print_names(stopped)
    reached = set(stopped)
    held = [run for run in runs if run not in reached]
    if held:
        print("not in the queue, and not started before you submit them again:")
        print_names(held)
    beside = [
        f"{sweep.name}/{other}"
        for sweep, only in chosen
        for other, jobs in queues[sweep.path].items()
        if only and other != only.name and any(job.job_id in ids for job in jobs)
    ]
    if beside:
        print(f"one task executes several runs, these stop with it: {', '.join(beside)}")


def _asked_for(runs_dir: Path, name: str, chain: Chain | None) -> list[tuple[SweepDir, RunDir | None]]:
    if chain:
        return [(sweep, None) for sweep in sweeps_of(chain)]
    if name == "all":
        return [(sweep, None) for sweep in with_whole_manifests(sweeps(runs_dir)) if _has_whole_submissions(sweep)]
    return [find_named(runs_dir, str(name_of_stage(runs_dir, name)))]


def _has_whole_submissions(sweep: SweepDir) -> bool:
    """Whether it can be told which jobs are the sweep's; where not, that is said."""
    from hpc.submit import submissions

    try:
        submissions(sweep)
    except RunError as error:
        log.warning(f"not cancelled: {error}")
        return False
    return True


def print_names(runs: Sequence[RunDir]) -> None:
    """A line for each run, so that whoever stops or retries runs sees which."""
    for run in runs[:_NAMES_SHOWN]:
        print(f"  {run.label}")
    if len(runs) > _NAMES_SHOWN:
        print(f"  and {len(runs) - _NAMES_SHOWN} more")


def _jobs_of_chains(runs_dir: Path) -> list[str]:
    """The jobs that go on with pipelines; first of all, so that they submit nothing more."""
    names = [name for chain in chains(runs_dir.absolute()) for name in chain.job_names()]
    return [job.job_id for job in slurm.queued(names) if slurm.in_flight(job.state)]


def _stop_local(run: RunDir) -> bool:
    """Tell a worker of this machine to save and end; True where there was one."""
    try:
        attempts = run.attempts()
    except RunError as error:
        log.warning(f"it is not known whether a process executes it: {error}")
        return False
    if not attempts or "end" in attempts[-1] or not run.alive():
        return False
    if attempts[-1].get("node") != socket.gethostname():
        return False
    try:
        os.kill(attempts[-1]["pid"], signal.SIGTERM)
    except (KeyError, ProcessLookupError, PermissionError):
        log.warning(f"{run.label}: process {attempts[-1].get('pid')} of {getpass.getuser()} cannot be told")
        return False
    return True
