"""Runs executed here and now, one after the other, without a scheduler. Ctrl-C stops at the next step, state saved, and
so does closing the terminal.
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
from src.runs.rundir import RunDir, SweepDir
from src.runs.sweeps import Request, open_sweep

_NAMES_SHOWN = 20
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yields `should_stop()`, true after the first Ctrl-C, SIGTERM or closed terminal (SIGHUP); a second Ctrl-C ends
    the process at once.
    """
    asked: list[int] = []
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if number == signal.SIGHUP:
            _write_nowhere(terminals)
        log.info("stopping at the next step; once more ends at once, without saving")

    # nohup ignores SIGHUP, which is to stay so.
    numbers = [n for n in _STOP_SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_nowhere(descriptors: Sequence[int]) -> None:
    """Each line to a terminal that is gone would be an error, and end the run before its state is saved."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def prepare_images(request: Request) -> Request:
    """Decode the images here, before anything is made for the request; compute nodes often have no network.

    Returns the request with the digest of each cell's images in it. Raises DataError.
    """
    from src.data.dataset import digest, images_of, prepare

    digests: dict[object, str] = {}
    for cell in request.cells:
        wanted = images_of(cell.config)
        if wanted not in digests:
            digests[wanted] = digest(prepare(cell.config))
    return replace(request, data={cell.name: digests[images_of(cell.config)] for cell in request.cells})


def open_and_run(
    request: Request,
    execute: Execute,
    show: Callable[[SweepDir], object] = lambda sweep: None,
    *,
    fresh: bool,
    new_code: bool = False,
) -> SweepDir:
    """Bring what is asked for to its end, `show` it, and return it. Images are made ready first: a mistake in what is
    asked for leaves no directory behind. Exits with 130 if Ctrl-C came in between.

    Raises RunError if the sweep was begun with other code, unless it is to continue with `new_code`, and after `show`
    where some of several runs are not done.
    """
    code_digest()  # Now: what is edited while the images are decoded is not what this process executes.
    request = prepare_images(request)
    sweep, new = open_sweep(request, fresh=fresh)
    if not new:
        _agree_on_code(sweep, new_code=new_code)
    run_sweep(sweep, execute, new=new)
    show(sweep)
    undone = [run for run in sweep.runs() if not run.is_done()]
    if undone:
        raise RunError(_not_done(sweep, undone))
    return sweep


def _agree_on_code(sweep: SweepDir, *, new_code: bool) -> None:
    """Half a sweep of one code and half of another would be a table of nothing."""
    change = code_change(sweep)
    begun = f"{sweep.path}: was made with other code ({change})"
    if all(run.is_done() for run in sweep.runs()):
        if change:
            log.info(f"{begun}; to run it again from the start: {hints.again('--fresh')}")
    elif new_code or not sweep.meta().get("snapshot"):
        log.info(f"continues with the current code, snapshot {use_new_code(sweep).name}")
    elif change:
        raise RunError(f"{begun}; restore it; {new_code_hint()}")
    else:
        # Attempts name this code, also where it differs only in what decides no result.
        keep_code(sweep.code)


def run_sweep(sweep: SweepDir, execute: Execute, *, new: bool) -> None:
    """Execute the runs that are not done, in order. Exits with 130 if Ctrl-C came in between.

    One of several that fails does not keep the others from theirs, and has the budgets of src/runs/causes.py; of a
    single one its error is raised, and the same command tries again.
    """
    runs = sweep.runs()
    left = [run for run in runs if not run.is_done()]
    for run in left:
        run.lift_cancel()
    word = "new" if new else f"continued, {len(runs) - len(left)} of {len(runs)} runs are done"
    try_one = attempt if len(runs) == 1 else _try_one_of_several
    stopped = False
    with make_reporter() as reporter, stop_on_signal() as should_stop:
        reporter.say(f"{sweep.path}: {word}")
        for number, run in enumerate(left, start=1):
            stopped = stopped or should_stop()
            if stopped:
                break
            if run.cancelled():
                continue
            if len(runs) > 1:
                reporter.say(f"run {number} of {len(left)}: {run.name}")
            outcome = try_one(run, execute, should_stop, reporter)
            if outcome and outcome.status == "stopped":
                reporter.say(
                    f"{run.label}: stopped at step {outcome.last_step} of {outcome.total_steps}; the state is saved"
                )
                stopped = True
    undone = [run for run in left if not run.is_done()]
    if stopped or (undone and all(run.cancelled() for run in undone)):
        log.info(f"to continue: {hints.again()}")
        sys.exit(EXIT_STOPPED)
    if not left:
        log.info(f"all of it was done before; to run it again from the start: {hints.again('--fresh')}")


class _OneOfSeveral(AttemptHooks):
    """One of several runs in the foreground has the budgets of src/runs/causes.py."""

    def check_allowed(self, run: RunDir) -> None:
        check_allowed(run.label, run.attempts())


def _try_one_of_several(run: RunDir, execute: Execute, should_stop: StopCheck, reporter: Reporter) -> Outcome | None:
    """As `attempt`, within the run's budgets; None if it failed, which is said."""
    try:
        return attempt(run, execute, should_stop, reporter, _OneOfSeveral())
    except RelayError as error:
        log.error(f"{run.label}: {error}")
    except Exception:
        traceback.print_exc()
    return None


def _not_done(sweep: SweepDir, undone: Sequence[RunDir]) -> str:
    """Which runs are not done and why, and the command that goes on."""
    lines = [f"{len(undone)} of {len(sweep.runs())} runs of {sweep.name} are not done:"]
    damages = {run: damage for run in undone if (damage := run.damage())}
    lines += [f"  {run.name}: {damages.get(run) or _why_not_done(run)}" for run in undone[:_NAMES_SHOWN]]
    lines += [f"  and {len(undone) - _NAMES_SHOWN} more"] if len(undone) > _NAMES_SHOWN else []
    blocked = [found for run in undone if run not in damages and (found := why_blocked(run.attempts()))]
    retry = hints.command("hpc.launch", "retry", sweep.name, "--failed")
    for word, advice in dict.fromkeys((found.cause, found.advice) for found in blocked):
        lines.append(f"{word}: {advice}, then these again: {retry}")
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
