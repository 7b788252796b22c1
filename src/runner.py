"""Executes runs in this process, one after the other, without a scheduler.

Ctrl-C, or closing the terminal, stops at the next step with the state saved.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from src import hints
from src.cli import EXIT_STOPPED
from src.errors import RelayError, RunError
from src.log import log
from src.progress import Reporter, StopCheck, make_reporter
from src.runs.attempts import AttemptHooks, Execute, Outcome, attempt
from src.runs.causes import check_allowed, why_blocked
from src.runs.code_snapshot import code_change, code_digest, keep_code, new_code_hint, use_new_code
from src.runs.reuse import reuse_finished
from src.runs.rundir import RunDir, SweepDir
from src.runs.sweeps import Request, describe_progress, open_sweep

_NAMES_SHOWN = 20
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yield `should_stop()`, true after the first Ctrl-C, SIGTERM or SIGHUP (a closed terminal).

    A second Ctrl-C ends the process immediately.
    """
    received: list[int] = []
    # Found now: isatty(3) is false for a terminal that was closed.
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def request_stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        # The next Ctrl-C raises KeyboardInterrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if number == signal.SIGHUP:
            _discard_output(terminals)
        log.info("stopping at the next step; press Ctrl-C again to end now, without saving")

    # nohup(1) starts the process with SIGHUP ignored; a handler would undo that.
    numbers = [n for n in _STOP_SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, request_stop) for number in numbers}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _discard_output(descriptors: Sequence[int]) -> None:
    """Redirect to /dev/null: writing to a closed terminal fails, which would end the run before its state is saved."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def prepare_images(request: Request, *, fresh: bool = False) -> Request:
    """Download and decode the images on this machine, because compute nodes often have no network.

    Returns the request with the digest of each cell's images. With `fresh`, the contents of the files of a folder are
    compared with those that were decoded, and not only their sizes and times. Raises DataError if they cannot be had.
    """
    from src.data.dataset import digest, images_of, prepare

    digests: dict[object, str] = {}
    for cell in request.cells:
        wanted = images_of(cell.config)
        if wanted not in digests:
            digests[wanted] = digest(prepare(cell.config, look_closer=fresh))
    return replace(request, data={cell.name: digests[images_of(cell.config)] for cell in request.cells})


def open_and_run(
    request: Request,
    execute: Execute,
    show: Callable[[SweepDir], object] = lambda sweep: None,
    *,
    fresh: bool,
    new_code: bool = False,
) -> SweepDir:
    """Execute the runs of a request that are not done, `show` their sweep, and return it.

    The images are prepared first, so that a mistake in the configuration leaves no directory behind. Exits with 130
    after Ctrl-C. Raises RunError if the sweep was started with other code and `new_code` is false, and after `show` if
    some of several runs are not done.
    """
    # Read the code before the images, which may take minutes: what is edited meanwhile is not what runs here.
    code_digest()
    # An evaluation always makes a new sweep, which no user has asked for with --fresh.
    request = prepare_images(request, fresh=fresh and request.kind != "evaluate")
    sweep, new = open_sweep(request, fresh=fresh)
    if not fresh:
        reuse_finished(sweep)
    if not new:
        _agree_on_code(sweep, new_code=new_code)
    run_sweep(sweep, execute, new=new)
    show(sweep)
    undone = [run for run in sweep.runs() if not run.is_done()]
    if undone:
        raise RunError(_not_done(sweep, undone))
    return sweep


def _agree_on_code(sweep: SweepDir, *, new_code: bool) -> None:
    """Save the current code, or raise RunError: results of two versions of the code are not comparable."""
    change = code_change(sweep)
    started = f"{sweep.path}: was made with other code ({change})"
    if all(run.is_done() for run in sweep.runs()):
        if change:
            log.info(f"{started}; to start over: {hints.again('--fresh')}")
    elif new_code:
        log.info(f"continues with the current code, snapshot {use_new_code(sweep).name}")
    elif change:
        raise RunError(f"{started}; restore it; {new_code_hint()}")
    else:
        # The attempts record this snapshot, even if it differs only in code that cannot change results.
        keep_code(sweep.code)


def run_sweep(sweep: SweepDir, execute: Execute, *, new: bool) -> None:
    """Execute the runs that are not done, in order. Exits with 130 after Ctrl-C.

    If one of several runs fails, the others are still executed, and the budgets of src/runs/causes.py apply to it. The
    error of a single run is raised, and the same command tries again.
    """
    runs = sweep.runs()
    remaining = [run for run in runs if not run.is_done()]
    for run in remaining:
        run.lift_cancel()
    try_one = attempt if len(runs) == 1 else _try_one_of_several
    stopped = False
    with make_reporter() as reporter, stop_on_signal() as should_stop:
        log.info(f"{sweep.path}: {describe_progress(sweep, new=new)}")
        for number, run in enumerate(remaining, start=1):
            stopped = stopped or should_stop()
            if stopped:
                break
            # Cancelled while an earlier run was executed.
            if run.cancelled():
                continue
            if len(runs) > 1:
                log.info(f"run {number} of {len(remaining)}: {run.name}")
            outcome = try_one(run, execute, should_stop, reporter)
            if outcome and outcome.status == "stopped":
                log.info(
                    f"{run.label}: stopped at step {outcome.last_step} of {outcome.total_steps}; the state is saved"
                )
                # A cancel of one run is no stop of the others.
                stopped = run.attempts()[-1]["cause"] != "CANCELLED"
    undone = [run for run in remaining if not run.is_done()]
    if stopped or (undone and all(run.cancelled() for run in undone)):
        log.info(f"to continue: {hints.again()}")
        sys.exit(EXIT_STOPPED)
    if not remaining:
        log.info(f"all runs were done before; to start over: {hints.again('--fresh')}")


class _OneOfSeveral(AttemptHooks):
    """One of several runs in the foreground has the budgets of src/runs/causes.py."""

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


def _not_done(sweep: SweepDir, undone: Sequence[RunDir]) -> str:
    """Which runs are not done and why, and the command that continues them."""
    lines = [f"{len(undone)} of {len(sweep.runs())} runs of {sweep.name} are not done:"]
    damages = {run: damage for run in undone if (damage := run.damage())}
    lines += [f"  {run.name}: {damages.get(run) or _why_not_done(run)}" for run in undone[:_NAMES_SHOWN]]
    lines += [f"  and {len(undone) - _NAMES_SHOWN} more"] if len(undone) > _NAMES_SHOWN else []
    blocked = [block for run in undone if run not in damages and (block := why_blocked(run.attempts()))]
    retry = hints.command("hpc.launch", "retry", sweep.name, "--failed")
    for cause, advice in dict.fromkeys((block.cause, block.advice) for block in blocked):
        lines.append(f"{cause}: {advice}, then these again: {retry}")
    if len(blocked) + len(damages) < len(undone):
        lines.append(f"to continue: {hints.again()}")
    return "\n".join(lines)


def _why_not_done(run: RunDir) -> str:
    if run.cancelled():
        return "cancelled"
    if run.is_locked_now():
        return "another process executes it"
    last = (run.attempts() or [{}])[-1]
    return ": ".join(str(last[name]) for name in ("cause", "error") if last.get(name)) or "not started"
