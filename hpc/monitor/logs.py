"""The logs command: what the jobs of a run printed, once or followed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hpc.pipeline.names import find_pipeline, resolve_stage_name
from hpc.pipeline.overview import show_pipeline_log
from relay import hints
from relay.config.sections import Paths
from relay.errors import RunError
from relay.runs.attempt import last_attempt
from relay.runs.causes import REQUEUED_AFTER
from relay.runs.names import find_named
from relay.runs.rundir import RunDir, SweepDir

_ERROR_CHARACTERS = 160


def show_logs(paths: Paths, name: str | None, *, follow: bool) -> None:
    """Print the logs of all jobs of the run `name`; a sweep's name is enough if it has one run. `follow`: wait for
    more.

    Each job's stdout comes before its stderr, each below the name of its file, as tail(1) prints several files.
    Raises RunError if the sweep has several runs, or if no job of the run has started.
    """
    runs_dir = paths.runs
    pipeline = find_pipeline(runs_dir, name) if name else None
    if pipeline:
        show_pipeline_log(pipeline)
        return
    sweep, run = find_named(runs_dir, resolve_stage_name(runs_dir, name), newest=True)
    runs = sweep.runs()
    chosen = run or (runs[0] if len(runs) == 1 else None)
    if chosen is None:
        example = hints.command("hpc.launch", "logs", runs[0].label)
        raise RunError(f"{sweep.name}: has {len(runs)} runs; name one of them, for example: {example}")
    seen: dict[Path, int] = {}
    shown: Path | None = None
    while True:
        for path in _log_files(sweep, chosen):
            with path.open("rb") as file:
                file.seek(seen.get(path, 0))
                text = file.read().decode(errors="replace")
                seen[path] = file.tell()
            if text and path != shown:
                print(f"{'' if shown is None else chr(10)}==> {path} <==")
                shown = path
            sys.stdout.write(text)
        sys.stdout.flush()
        if not follow or _is_over(chosen):
            break
        time.sleep(1)
    if not seen:
        why = hints.command("hpc.launch", "status", sweep.name)
        raise RunError(f"{chosen.label}: no job of it has started yet; to see why: {why}")


def _is_over(run: RunDir) -> bool:
    """Whether the run is done, or its last attempt ended for a cause that is not requeued."""
    last = last_attempt(run.attempts())
    return run.is_done() or (last is not None and last.ended and last.cause not in REQUEUED_AFTER)


def _log_files(sweep: SweepDir, run: RunDir) -> list[Path]:
    """The log files of the run's jobs, in order.

    The submissions also name tasks that died before they started an attempt; the attempts also name local jobs.
    """
    from hpc.submission.submissions import submissions

    ids = [
        made.task_id(position)
        for made in submissions(sweep)
        for position, names in enumerate(made.tasks)
        if made.job_id and run.name in names
    ]
    ids = list(dict.fromkeys([*ids, *(attempt.job for attempt in run.attempts() if attempt.job)]))
    found = (_log_file(sweep, job, suffix) for job in ids for suffix in ("out", "err"))
    return [path for path in found if path]


def _log_file(sweep: SweepDir, task: str, suffix: str) -> Path | None:
    """The log of a task; None if there is none."""
    path = sweep.jobs.absolute() / f"{task}_0_log.{suffix}"
    return path if path.is_file() else None


def last_line(sweep: SweepDir, task: str) -> str | None:
    """The last line of a task's stderr, or of its stdout if that is empty. None if both are.

    srun closes with lines of its own ("task 0: Exited with exit code 3"); the reason stands above them.
    """
    for path in (_log_file(sweep, task, suffix) for suffix in ("err", "out")):
        lines = path.read_text(errors="replace").split("\n") if path else []
        texts = [line.strip() for line in lines if line.strip()]
        if texts:
            own = [text for text in texts if not text.startswith("srun: ")]
            return (own or texts)[-1][:_ERROR_CHARACTERS]
    return None
