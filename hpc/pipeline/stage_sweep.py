"""The sweep of a stage: reopened or made, and refused if its runs failed."""

from __future__ import annotations

from hpc.pipeline.directory import Pipeline, StageRecord
from hpc.recovery.reconcile import RunsByState, blocked_by_cause, classify_runs, last_cause
from hpc.slurm import Queue
from hpc.submission.prepare import prepare_inputs
from hpc.submission.submissions import submissions
from hpc.submission.trust import check_sweep
from relay import hints
from relay.errors import RunError
from relay.runs.causes import STOPPED_BY_USER
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request, check_same_inputs, open_sweep


def open_stage_sweep(pipeline: Pipeline, stage: str, request: Request) -> SweepDir:
    """The sweep of a stage: the one that it had before, or one planned now.

    Unless the pipeline is --fresh, an earlier sweep of the same content counts as planned. Raises DataError if the
    data has changed, RunError if it is another user's and --trust was not given.
    """
    request = prepare_inputs(request)
    sweep = pipeline.stage_sweep(stage)
    # The key differs if an earlier stage was run again and gave another result.
    if sweep is None or sweep.meta()["key"] != request.key:
        sweep, _ = open_sweep(request, fresh=bool(pipeline.meta()["fresh"]), code_root=pipeline.snapshot())
        pipeline.record_stage(StageRecord(stage, "planned", sweep.name))
    check_sweep(sweep)
    check_same_inputs(sweep, request)
    return sweep


def classify_stage(sweep: SweepDir, queue: Queue, *, by_stage_job: bool) -> RunsByState:
    """The runs of the stage by their state.

    Raises RunError if the stage cannot continue by itself: its runs are blocked, or a user stopped them.
    """
    by_state = classify_runs(sweep, queue)
    if by_state.queued:
        return by_state  # What still runs is not held up by what has failed.
    if by_state.blocked:
        raise RunError(
            f"{len(by_state.blocked)} of {len(sweep.runs())} runs failed\n{blocked_by_cause(by_state.blocked)}\n"
            f"then continue with: {hints.again()}"
        )
    submitted = {name for each in submissions(sweep) if each.job_id for names in each.tasks for name in names}
    # A task that was submitted and never made an attempt was cancelled while it waited.
    stopped = [
        run
        for run in by_state.to_submit
        if last_cause(run) in STOPPED_BY_USER or (not run.attempts() and run.name in submitted)
    ]
    stopped += by_state.cancelled
    if by_stage_job and stopped:
        logs = hints.command("hpc.launch", "logs", stopped[0].label)
        raise RunError(
            f"{len(stopped)} of {len(sweep.runs())} runs were cancelled or never started, such as {stopped[0].name}; "
            f"to see its log: {logs}; to continue: {hints.again()}"
        )
    return by_state
