"""One task on its node: execute its runs, and requeue the task if a signal stops it.

A signal only sets a flag. The training loop sees it at the next step boundary, saves and returns. Then, outside the
loop, the attempt is closed with its cause, and the task requeues itself or ends. A handler that did all of this itself
might interrupt an optimizer step or the write of a file.

A task with several runs executes each in a fork of its own, see hpc/node/fork.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc import slurm
from hpc.node.execution import execute_run
from hpc.node.fork import Forks
from hpc.recovery.diagnosis import StopRequest, own_job_id
from relay import hints
from relay.errors import ClusterError
from relay.log import log, start_log
from relay.progress import PlainReporter
from relay.runs.attempt import last_attempt
from relay.runs.causes import REQUEUED_AFTER, STOPPED_BY_USER, why_blocked
from relay.runs.rundir import RunDir


def main(tasks_file: Path) -> None:
    """Execute the runs of this job's element: those at its place in the file, a JSON list of lists of run paths.

    A path cannot go stale while the job waits; a configuration could. Exits with 3 if the file cannot be read.
    """
    start_log()
    try:
        tasks = json.loads(tasks_file.read_text())
    except (OSError, ValueError) as error:
        log.error(f"{tasks_file}: the list of the runs of this job cannot be read: {error}")
        sys.exit(3)
    element = int(os.environ.get("SLURM_ARRAY_TASK_ID") or 0)
    execute_runs([RunDir(Path(path)) for path in tasks[element]])


def execute_runs(runs: Sequence[RunDir]) -> dict[str, str]:
    """Execute the runs that are not done. If one fails, the others are still executed. Returns each state by label.

    Several runs are executed in forks, RELAY_RUNS_PER_SLICE at a time. Raises SystemExit if the task was requeued, or,
    with exit code 1 at the end, if runs failed.
    """
    stop = StopRequest()
    stop.install()
    in_forks = len(runs) > 1
    if in_forks:
        at_once = min(len(runs), int(os.environ.get("RELAY_RUNS_PER_SLICE", "1")))
        states = Forks(at_once, lambda run: execute_run(run, stop, PlainReporter(run.label), at_once), stop).run_all(
            runs
        )
    else:
        states = {run.label: execute_run(run, stop, PlainReporter()) for run in runs}
    stopped = [state for state in states.values() if state in (*REQUEUED_AFTER, *STOPPED_BY_USER)]
    if stop.requested():
        # A fork has asked SLURM, too, but the `stop` in which it noted the answer is its own.
        requeue_if_allowed(runs, stopped[-1] if stopped and not in_forks else stop.cause(), stop)
    elif in_forks and (unasked := [state for state in stopped if state in REQUEUED_AFTER]):
        # A signal reached a single run, by its process id.
        requeue_if_allowed(runs, unasked[-1], stop)
    failed = [label for label, state in states.items() if state == "FAILED"]
    if failed:
        log.error(f"failed: {', '.join(failed)}; the error is above and in attempts.jsonl")
        sys.exit(1)
    return states


def requeue_if_allowed(runs: Sequence[RunDir], cause: str, stop: StopRequest) -> None:
    """After a stop, requeue the task if the cause allows it and at least one unfinished run may continue.

    Raises SystemExit after a requeue, so that nothing else is executed; with exit code 1 if SLURM refuses it.
    """
    unfinished = [run for run in runs if not (run.is_done() or run.cancelled() or run.damage())]
    if not unfinished:
        return
    blocks = {run: why_blocked(run.attempts()) for run in unfinished}
    for run, blocked in blocks.items():
        if blocked:
            log.warning(f"{run.label}: not requeued: {blocked.with_retry(run.label)}")
    if cause == "SIGNALLED":
        # The controller may have been unreachable, and a requeue would undo a cancel: ask again, and wait longer.
        cause = stop.cause(patient=True)
    if stop.put_back:
        log.info(f"{cause}: {_stopped(unfinished)}; SLURM has already requeued the task")
    elif cause not in REQUEUED_AFTER:
        log.info(f"{cause}: {_stopped(unfinished)}; the task is not requeued")
    elif None in blocks.values():
        log.info(f"{cause}: {_stopped(unfinished)}; requeueing the task")
        try:
            _requeue()
        except ClusterError as error:
            _note_refusal(unfinished, str(error))
            sys.exit(1)
        sys.exit(-1)


def _stopped(runs: Sequence[RunDir]) -> str:
    """What is known of runs that were stopped: of a command, not whether it has saved its state."""
    return "stopped" if any(run.is_of_a_command for run in runs) else "the state is saved"


def _note_refusal(runs: Sequence[RunDir], reason: str) -> None:
    """Say that the task was not requeued, here and in the newest attempts, where `status` finds it.

    Sites disable requeueing (JobRequeue of slurm.conf(5)), or a profile does.
    """
    again = hints.again(saved=runs[0].sweep().meta())
    log.error(f"not requeued: {reason}; {_stopped(runs)}; to continue: {again}")
    for run in runs:
        last = last_attempt(run.attempts())
        if last and last.cause in REQUEUED_AFTER:
            run.record_attempt(last.number, error=f"not requeued: {reason}")


def _requeue() -> None:
    job_id = own_job_id()
    # Without one, the local pool decides by the cause in attempts.jsonl.
    if job_id:
        slurm.requeue(job_id)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
