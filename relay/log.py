"""The log: lines on stderr about what the program is doing. Results are printed on stdout."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys

from relay.text import printable

# --verbose sets it, too, so that the jobs of a verbose command are verbose.
LEVEL_VARIABLE = "RELAY_LOG_LEVEL"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

log = logging.getLogger("relay")


class _StderrHandler(logging.Handler):
    """Writes to the current sys.stderr: rich's progress bar replaces it, to print lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        # A closed pipe or terminal must not end a run. ValueError: stderr was closed. RuntimeError: a signal handler
        # interrupted a print, and Python's buffered streams are not reentrant.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            print(self.format(record), file=sys.stderr, flush=True)


class _Formatter(logging.Formatter):
    """`12:30:59 text`, and for any level but INFO `12:30:59 warning: text`."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        # Cleaned here, too: jobs log without a command, and rich's progress bar replaces sys.stderr.
        return printable(f"{self.formatTime(record, '%H:%M:%S')} {level}{super().format(record)}")


def start_log(level: int | None = None) -> None:
    """Send log records of at least `level` to stderr. Default: the level in RELAY_LOG_LEVEL, else INFO."""
    if not log.handlers:
        handler = _StderrHandler()
        handler.setFormatter(_Formatter())
        log.addHandler(handler)
        log.propagate = False  # A library may add a handler to the root logger, which would print every line twice.
    log.setLevel(level or _LEVELS.get(os.environ.get(LEVEL_VARIABLE, "").lower(), logging.INFO))


def set_verbosity(*, verbose: bool = False, quiet: bool = False) -> None:
    """Apply --verbose and --quiet. The jobs of a verbose command are verbose, too; --quiet does not affect jobs."""
    if verbose:
        os.environ[LEVEL_VARIABLE] = "debug"
    start_log(logging.DEBUG if verbose else logging.WARNING if quiet else None)


def say(text: str) -> None:
    """Print on stdout what a command does, beside its results: nothing with --quiet."""
    if log.level <= logging.INFO:
        print(text, flush=True)


@functools.cache
def warn_once(text: str) -> None:
    """Log a warning that one command meets several times only once."""
    log.warning(text)
