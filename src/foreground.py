"""Runs executed here and now, one after the other, without a scheduler. Ctrl-C stops at the next step, state saved."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from src.attempts import Execute, attempt
from src.cli import EXIT_STOPPED
from src.code_snapshot import NEW_CODE_HINT, code_change, code_digest, keep_code, use_new_code
from src.errors import RunError
from src.progress import make_reporter
from src.rundir import SweepDir
from src.sweeps import Request, open_sweep


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yields `should_stop()`, true after the first Ctrl-C or SIGTERM; a second Ctrl-C ends the process at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nstopping at the next step; once more ends at once, without saving", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare_images(request: Request) -> Request:
    """Decode the images here, before anything is made for the request; compute nodes often have no network.

    Returns the request with the digest of each cell's images in it. Raises DataError.
    """
    from src.data import digest, images_of, prepare

    digests: dict[object, str] = {}
    with make_reporter() as reporter:
        for cell in request.cells:
            wanted = images_of(cell.config)
            if wanted not in digests:
                digests[wanted] = digest(prepare(cell.config, reporter.say))
    return replace(request, data={cell.name: digests[images_of(cell.config)] for cell in request.cells})


def open_and_run(request: Request, execute: Execute, *, fresh: bool, new_code: bool = False) -> SweepDir:
    """Bring what is asked for to its end, and return it. Images are made ready first: a mistake in what is asked for
    leaves no directory behind. Exits with 130 where Ctrl-C came in between.

    Raises RunError where the sweep was begun with other code, unless it is to go on with `new_code`.
    """
    code_digest()  # Now: what is edited while the images are decoded is not what this process executes.
    request = prepare_images(request)
    sweep, new = open_sweep(request, fresh=fresh)
    if not new:
        _agree_on_code(sweep, new_code=new_code)
    run_sweep(sweep, execute, new=new)
    return sweep


def _agree_on_code(sweep: SweepDir, *, new_code: bool) -> None:
    """Half a sweep of one code and half of another would be a table of nothing."""
    change = code_change(sweep)
    begun = f"{sweep.path}: was made with other code ({change})"
    if all(run.result() is not None for run in sweep.runs()):
        if change:
            print(f"{begun}; --fresh does it anew", file=sys.stderr, flush=True)
    elif new_code or not sweep.meta().get("snapshot"):
        print(f"goes on with the code as it is now, snapshot {use_new_code(sweep).name}", file=sys.stderr, flush=True)
    elif change:
        raise RunError(f"{begun}; put it back, or {NEW_CODE_HINT}")
    else:
        # Attempts name this code, also where it differs only in what decides no result.
        keep_code(sweep.code)


def run_sweep(sweep: SweepDir, execute: Execute, *, new: bool) -> None:
    """Execute the runs that are not done, in order. Exits with 130 where Ctrl-C came in between."""
    runs = sweep.runs()
    left = [run for run in runs if run.result() is None]
    for run in left:
        run.lift_cancel()
    word = "new" if new else f"goes on, {len(runs) - len(left)} of {len(runs)} runs are done"
    with make_reporter() as reporter, stop_on_signal() as should_stop:
        reporter.say(f"{sweep.path}: {word}")
        for number, run in enumerate(left, start=1):
            if should_stop():
                break
            if run.cancelled():
                continue
            if len(runs) > 1:
                reporter.say(f"run {number} of {len(left)}: {run.name}")
            outcome = attempt(run, execute, should_stop, reporter)
            if outcome.status == "stopped":
                reporter.say(
                    f"{run.label}: stopped at step {outcome.last_step} of {outcome.total_steps}; the state is saved"
                )
                break
    if any(run.result() is None for run in left):
        print(f"to go on: {command_line()}", file=sys.stderr, flush=True)
        sys.exit(EXIT_STOPPED)
    if not left:
        print("all of it was done before; --fresh does it anew", file=sys.stderr, flush=True)


def command_line() -> str:
    """The command of this process, as it can be typed again; without --fresh, which would not go on."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = f"-m {spec.name.removesuffix('.__main__')}" if spec else shlex.quote(sys.argv[0])
    words = [shlex.quote(word) for word in sys.argv[1:] if word != "--fresh"]
    return " ".join(["python", name, *words])
