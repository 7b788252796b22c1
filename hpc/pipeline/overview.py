"""Show a pipeline: its stages, what continues it, and what its jobs printed."""

from __future__ import annotations

import contextlib
import time
from collections import Counter

from hpc import slurm
from hpc.pipeline.directory import STAGES, Pipeline, StageRecord
from hpc.submission.submissions import in_queue, submissions
from relay import hints
from relay.errors import ClusterError, RunError
from relay.log import log
from relay.runs.planning_lock import is_folder_locked
from relay.terminal import print_rows


def show_pipeline(pipeline: Pipeline) -> bool:
    """Print a table of the stages (state, sweep, runs, jobs, result), then what continues the pipeline.

    Returns False if no job and no process is working on it.
    """
    stages, stage_jobs = pipeline.stage_records(), ""
    try:
        queued = [job for job in slurm.squeue(pipeline.job_names()) if slurm.in_flight(job.state)]
        stage_jobs = ", ".join(f"{job.job_id} {job.state} {job.reason}".strip() for job in queued)
    except ClusterError as error:
        log.warning(f"SLURM did not answer; this is what the files on disk say: {error}")
    rows = [_row(pipeline, stages.get(stage, StageRecord(stage, "waits"))) for stage in STAGES]
    print_rows(rows, pipeline.name)
    # `advance` holds the lock: on SLURM only while it submits, with the local profile from the first stage to the last.
    is_advancing = is_folder_locked(pipeline.path)
    failed = [record for record in stages.values() if record.state == "failed"]
    if failed and not is_advancing:
        print(f"{pipeline.name} stops at {failed[-1].stage}: {failed[-1].reason or ''}")
    elif STAGES[-1] in stages and stages[STAGES[-1]].state == "done":
        print(f"{pipeline.name} is complete")
    elif stage_jobs:
        print(f"job {stage_jobs} continues it")
    elif is_advancing:
        print("a process is continuing it now")
    else:
        print(f"no job in the queue continues it; to continue: {hints.again()}")
    planned = _planned_stages(pipeline)
    if planned:
        print(f"to see the runs of a stage: {hints.command('hpc.launch', 'status', f'{pipeline.name}/{planned[-1]}')}")
    return bool(stage_jobs) or is_advancing or any(row["jobs"] for row in rows)


def watch_pipeline(pipeline: Pipeline, every_s: float | None) -> None:
    """Show the pipeline; with `every_s`, again every `every_s` seconds until nothing works on it, or Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt), hints.acting_for(pipeline.meta()):
        while show_pipeline(pipeline) and every_s:
            time.sleep(every_s)


def _row(pipeline: Pipeline, record: StageRecord) -> dict[str, str | None]:
    sweep = pipeline.stage_sweep(record.stage)
    runs, jobs = sweep.runs() if sweep else [], ""
    if sweep and not all(run.is_done() for run in runs) and submissions(sweep):
        try:
            tasks = {job.job_id: job for jobs in in_queue(sweep).values() for job in jobs}
        except ClusterError:
            tasks = {}  # `show_pipeline` has said that SLURM does not answer.
        counts = Counter(job.state for job in tasks.values())
        ids = sorted({job.array_id for job in tasks.values()})
        jobs = " ".join(ids) + (": " if ids else "") + ", ".join(f"{count} {state}" for state, count in counts.items())
    done = sum(run.is_done() for run in runs)
    return {
        "stage": record.stage,
        "state": record.state,
        "sweep": sweep.name if sweep else None,
        "runs done": f"{done}/{len(runs)}" if sweep else None,
        "jobs": jobs or None,
        "result": record.result,
    }


def show_pipeline_log(pipeline: Pipeline) -> None:
    """Print the output of the jobs that continue the pipeline. Raises RunError if none has started yet."""
    files = sorted(pipeline.jobs.glob("*.out"), key=lambda path: path.stat().st_mtime)
    for path in files:
        print(f"=== {path}\n{path.read_text(errors='replace').rstrip()}")
    planned = _planned_stages(pipeline)
    stage = hints.command("hpc.launch", "logs", f"{pipeline.name}/{planned[-1] if planned else STAGES[0]}")
    if not files:
        raise RunError(f"{pipeline.name}: no job that continues it has started yet; to see the log of a stage: {stage}")
    print(f"to see the log of a stage: {stage}")


def _planned_stages(pipeline: Pipeline) -> list[str]:
    return [stage for stage in STAGES if pipeline.stage_sweep(stage)]
