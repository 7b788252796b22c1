"""The log: what the program says while it works, as lines on stderr. Answers to the user are printed on stdout."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys

# Also set for the jobs of a command that was called with --verbose.
LEVEL_VARIABLE = "RELAY_LOG_LEVEL"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

log = logging.getLogger("relay")


class _StderrHandler(logging.Handler):
    """Writes to whatever sys.stderr is now: a progress bar replaces it, to print lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        # A closed pipe or a terminal that is gone must not end a run. ValueError: stderr was closed; RuntimeError: this
        # is a signal handler that interrupted another print.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            print(self.format(record), file=sys.stderr, flush=True)


class _Formatter(logging.Formatter):
    """`12:30:59 text`; of all other levels than INFO, `12:30:59 warning: text`."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{super().format(record)}"


def start_log(level: int | None = None) -> None:
    """Send the log to stderr, from `level` on. Default: what RELAY_LOG_LEVEL names, else INFO."""
    if not log.handlers:
        handler = _StderrHandler()
        handler.setFormatter(_Formatter())
        log.addHandler(handler)
        log.propagate = False  # A library may have given the root logger a handler, which would double the lines.
    log.setLevel(level or _LEVELS.get(os.environ.get(LEVEL_VARIABLE, "").lower(), logging.INFO))


def set_verbosity(*, verbose: bool = False, quiet: bool = False) -> None:
    """What --verbose and --quiet do. Jobs that a verbose command submits are verbose; --quiet changes no job's log."""
    if verbose:
        os.environ[LEVEL_VARIABLE] = "debug"
    start_log(logging.DEBUG if verbose else logging.WARNING if quiet else None)


@functools.cache
def warn_once(text: str) -> None:
    """Log a warning that one command meets several times only once."""
    log.warning(text)
