"""Ctrl-C, SIGTERM and a closed terminal, as a question that is asked at every step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from relay.log import log

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
