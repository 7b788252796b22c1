"""The lock of a runs directory: one process at a time plans, submits or advances a pipeline in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from relay.errors import RunError
from relay.log import log
from relay.user import why_not_writable

_PLANNING_LOCK = ".planning.lock"
# Seconds to wait for another planner before the wait is logged, and after that.
_QUIET_S, _PATIENCE_S = 10, 900


@contextlib.contextmanager
def folder_lock(runs_dir: Path) -> Iterator[None]:
    """Hold the planning lock of a runs directory; two launches at once would plan and submit the same runs twice.

    Raises RunError if the directory cannot be written, or if the lock is still held after 15 minutes.
    """
    from filelock import FileLock, Timeout

    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(runs_dir / _PLANNING_LOCK)
        try:
            lock.acquire(timeout=_QUIET_S)
        except Timeout:
            log.info(f"waiting for another launch, which holds {lock.lock_file}")
            lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise RunError(
            f"{lock.lock_file}: still held after {_PATIENCE_S} s; if no launch runs on any login node, remove this file"
        ) from None
    except OSError as error:
        raise RunError(
            f"{runs_dir}: cannot be written: {why_not_writable(runs_dir / _PLANNING_LOCK, error)}; "
            "set paths.runs_dir to a writable folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_folder_locked(runs_dir: Path) -> bool:
    """Whether another process holds the planning lock of this directory now."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(runs_dir / _PLANNING_LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False  # Unknown: the folder belongs to another user, or is read-only.


def unwritable(runs_dir: Path, error: OSError) -> RunError:
    """The error for a runs directory that this user cannot write."""
    return RunError(f"{runs_dir}: cannot be written: {error.strerror}; set paths.runs_dir to a writable folder")
