"""`--here`: execute runs in this process, with its code, one after the other: for a debugger."""

from __future__ import annotations

import math
import sys
import traceback

from hpc.node.execution import executor_of
from hpc.submission.stop_signals import stop_on_signal
from relay import hints
from relay.cli import EXIT_STOPPED
from relay.errors import RelayError, RunError
from relay.log import log
from relay.progress import Reporter, StopCheck, make_reporter
from relay.runs.causes import check_allowed
from relay.runs.code_snapshot import code_digest, keep_code
from relay.runs.lifecycle import AttemptHooks, Execute, Outcome, attempt
from relay.runs.rundir import RunDir, SweepDir
from relay.work import Work


def execute_here(sweep: SweepDir, work: Work) -> None:
    """Execute the runs of a sweep that are not done, in order. Exits with 130 after Ctrl-C.

    If one of several runs fails, the others are still executed, and the budgets of causes.py apply to it. The error of
    a single run is raised, and the same command tries again. Raises RunError if the sweep has other code than this
    process.
    """
    runs = sweep.runs()
    remaining = [run for run in runs if not run.is_done()]
    if remaining and sweep.meta()["snapshot"] != code_digest():
        raise RunError(
            f"{sweep.path}: --here executes the current code, and this sweep has other code; to continue with "
            f"the changed code: {hints.again('--new-code', '--here')}; to start over with it: "
            f"{hints.again('--fresh', '--here')}"
        )
    if remaining:
        keep_code(sweep.code)
    for run in remaining:
        run.lift_cancel()
    stopped = False
    with make_reporter() as reporter, stop_on_signal() as should_stop:
        for number, run in enumerate(remaining, start=1):
            stopped = stopped or should_stop()
            if stopped:
                break
            # Cancelled while an earlier run was executed.
            if run.cancelled():
                continue
            if len(runs) > 1:
                log.info(f"run {number} of {len(remaining)}: {run.name}")
            execute = attempt if len(runs) == 1 else _try_one_of_several
            # After Ctrl-C, it waits until a program has saved: its user can kill it.
            outcome = execute(run, executor_of(work, lambda: math.inf), should_stop, reporter)
            if outcome and outcome.status == "stopped":
                log.info(
                    f"{run.label}: stopped at step {outcome.last_step}"
                    f"{'' if outcome.total_steps is None else f' of {outcome.total_steps}'}"
                    f"{'' if run.is_of_a_command else '; the state is saved'}"
                )
                # A cancel of one run is no stop of the others.
                stopped = run.attempts()[-1].cause != "CANCELLED"
    undone = [run for run in remaining if not run.is_done()]
    if stopped or (undone and all(run.cancelled() for run in undone)):
        log.info(f"to continue: {hints.again()}")
        sys.exit(EXIT_STOPPED)


class _OneOfSeveral(AttemptHooks):
    """One of several runs in this process has the budgets of relay/runs/causes.py."""

    def check_allowed(self, run: RunDir) -> None:
        check_allowed(run.label, run.attempts())


def _try_one_of_several(run: RunDir, execute: Execute, should_stop: StopCheck, reporter: Reporter) -> Outcome | None:
    """`attempt` within the run's budgets. Returns None after logging the error if it fails."""
    try:
        return attempt(run, execute, should_stop, reporter, _OneOfSeveral())
    except RelayError as error:
        log.error(f"{run.label}: {error}")
    # A defect. The traceback is printed, and the other runs are still executed.
    except Exception:
        traceback.print_exc()
    return None
