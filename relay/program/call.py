"""`python -m relay.program.call ORDER`: calls a program's function, once, in a process of its own.

The supervisor (hpc/node/supervisor.py) starts it. SIGTERM only sets a flag, which the program's loop sees between two
steps. The run is done if, and only if, the function has returned and that is reported; an exit code proves nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from relay.errors import RelayError, TakenOverError
from relay.program.contract import Order, read_order
from relay.program.current import use
from relay.program.environment import compute_deterministically, installed_versions
from relay.program.generators import reseed_torch
from relay.program.parameters import Parameters, load_function, project_first
from relay.program.run import Run, Stopped
from relay.program.trace import Trace

# What the process ends with: the function has returned or was stopped; it failed, and the reason is reported.
_ENDED, _FAILED = 0, 1


def call(order: Order, versions: Mapping[str, str]) -> int:
    """Call the function of the order, where these `versions` are installed. Returns the exit code."""
    # First: a signal that comes while the program imports torch must not end it.
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    end_forks_at_signals()
    own = os.getpid()
    try:
        order.report("started", versions=versions)
        run = Run(order)
        # Before the module is imported, which may ask for the current run.
        use(run)
        signal.signal(signal.SIGTERM, lambda number, _: run.ask_to_stop())
        if asked:
            run.ask_to_stop()
        function = load_function(order.function, order.folder, order.root)
        parameters = Parameters(function)
        if Trace().is_on:
            # A program that depends on how the generators begin is found.
            reseed_torch()
        if order.deterministic:
            compute_deterministically()
        os.chdir(order.work)
        try:
            returned = parameters.call(function, [run], order.params)
        except Stopped:
            returned = None
        if os.getpid() != own:
            return _ENDED
        run.end(returned)
        return _ENDED
    except TakenOverError as error:
        print(f"relay: {error}", file=sys.stderr)
        return _FAILED
    except BaseException as error:
        # SystemExit as well: a program that exits has not returned.
        traceback.print_exc()
        if os.getpid() != own:
            return _FAILED
        reason = str(error) if isinstance(error, RelayError) else _last_line(error)
        # On a full disk, the supervisor has what was printed last.
        with contextlib.suppress(RelayError):
            order.report("failed", reason=reason[:2000], kind=_kind(error))
        return _FAILED


def end_forks_at_signals() -> None:
    """Let what this process forks end at SIGTERM, which `terminate` of multiprocessing sends, as without a handler."""

    def be_ended() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    os.register_at_fork(
        # A signal that comes before the new process has its own handling waits for that.
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}),
        after_in_child=be_ended,
    )


def _kind(error: BaseException) -> str:
    # torch raises OutOfMemoryError if the slice is full, Python MemoryError if the job is.
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return "memory" if memory else "error"


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def main() -> None:
    """Call the function of the order that is named on the command line."""
    order = read_order(Path(sys.argv[1]))
    versions = installed_versions()
    project_first(order.folder, order.root)
    sys.argv[:] = [order.function]
    sys.exit(call(order, versions))


if __name__ == "__main__":
    main()
