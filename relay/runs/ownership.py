"""The run lock, a heartbeat that shows its owner is alive, and what stops an owner: a cancel, or a broken lock.

A lock alone is not enough: a node that SLURM has given up may still be computing when its run goes to another task. The
owner writes a token into the run's owner file and touches that file every HEARTBEAT_S seconds, independent of epochs
and checkpoints. A lock is broken only after SILENCE_S seconds without a heartbeat. The next owner writes its own token;
the earlier owner finds it before its next write, and stops.

A cancel may come from another host, from which no signal reaches the owner: the owner looks for the cancel file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from relay.config.yaml_file import json_text
from relay.errors import RunError, TakenOverError
from relay.files import read_json, replace_file
from relay.runs import records
from relay.user import why_not_writable

HEARTBEAT_S = 10.0
# Nine missed heartbeats: NFS clients may serve attributes up to 60 s old (acdirmax of nfs(5)).
SILENCE_S = 90.0
# Seconds between two looks for a cancel.
_LOOK_EVERY_S = 1.0


@contextlib.contextmanager
def hold_lock(file: Path, label: str, wait_s: float) -> Iterator[int | None]:
    """Hold the lock file of the run `label`. Yields its descriptor: a process that inherits it holds the lock as well.

    Raises RunError if another process still holds it after `wait_s` seconds, or if the file cannot be locked.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{label} is being executed by another process; wait for it, or stop that one") from None
    except OSError as error:
        raise RunError(
            f"{file}: cannot be locked: {why_not_writable(file, error)}; fix its permissions, "
            "then run the same command again"
        ) from error
    # A copy, because filelock closes its own descriptor in every fork.
    descriptor = None if lock._context.lock_file_fd is None else os.dup(lock._context.lock_file_fd)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
        lock.release()


def is_locked(file: Path) -> bool | None:
    """Whether a process holds the lock file, found by trying a shared lock, which only needs read permission.

    None if flock(2) cannot tell: the file is not readable, or the disk has no flock. filelock then takes the mere
    existence of the file as the lock, and a killed process leaves that file behind.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in (errno.EAGAIN, errno.EACCES) else None
    finally:
        os.close(descriptor)
    return False


def heart_beats(owner_file: Path) -> bool:
    """Whether the owner's last heartbeat is less than SILENCE_S seconds old."""
    try:
        return time.time() - owner_file.stat().st_mtime < SILENCE_S
    except OSError:
        return False


class Ownership:
    """This process owns one run: a context manager that runs the heartbeat.

    `lost` becomes true when a heartbeat finds another owner's token or no owner file, `cancelled` when `is_cancelled`
    was true once. `token` is in the owner file. `lock`: the descriptor of the run lock, for a process that shall hold
    it, too.
    """

    def __init__(self, file: Path, label: str, is_cancelled: Callable[[], bool], lock: int | None = None) -> None:
        self._file, self._label, self._is_cancelled = file, label, is_cancelled
        self.token, self.lock = uuid.uuid4().hex, lock
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.lost = self.cancelled = False

    def __enter__(self) -> Ownership:
        owner = {"token": self.token, "node": socket.gethostname(), "pid": os.getpid()}
        replace_file(self._file, json_text(owner))
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()

    def check(self) -> None:
        """Raises TakenOverError if another process has taken over the run, RunError if the owner file is damaged, or
        gone with the run's directory.
        """
        if self._is_gone():
            # What is written by name now may land in a directory that another process has made since.
            raise RunError(
                f"{self._file.parent}: was deleted, moved or replaced while this process executed the run; nothing "
                "more is written from here; restore the directory, or start the run over with the same command"
            )
        if self._is_taken():
            self.lost = True
            raise TakenOverError(
                f"{self._label}: was taken over by another process while this one was silent; "
                "nothing more is written from here"
            )

    def _is_taken(self) -> bool:
        try:
            # Opening a file makes an NFS client revalidate its cache (close-to-open consistency): never a stale answer.
            owner = read_json(self._file, records.OWNER)
        except OSError:
            return False  # The disk is unreachable; the write that follows reports it.
        return owner is not None and owner["token"] != self.token

    def _is_gone(self) -> bool:
        with contextlib.suppress(OSError):
            return not self._file.exists()
        return False

    def _beat(self) -> None:
        beaten = time.monotonic()
        while not self._ended.wait(min(_LOOK_EVERY_S, HEARTBEAT_S)):
            # The next write reports a damaged owner file.
            with contextlib.suppress(OSError, RunError):
                self.cancelled = self.cancelled or self._is_cancelled()
                if time.monotonic() - beaten < HEARTBEAT_S:
                    continue
                if self._is_taken() or self._is_gone():
                    self.lost = True
                    return
                os.utime(self._file)
                beaten = time.monotonic()
