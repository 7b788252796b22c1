"""Who executes a run: a heartbeat that shows the owner is alive, and a fence that stops an owner whose lock was broken.

A lock alone is not enough. A node that SLURM has given up may still be computing, and its run is then given to another
task. The owner writes a token into the run's owner file and touches the file every HEARTBEAT_S seconds, whatever its
epochs and checkpoints do; a lock is broken only after a long silence. The next owner writes its own token, and the
earlier one finds it before its next write and stops.
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
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from src import records
from src.errors import RunError, TakenOverError
from src.files import read_json, replace_file
from src.yaml_file import json_text

HEARTBEAT_S = 10.0
# Nine missed heartbeats: NFS clients may serve attributes up to 60 s old (acdirmax of nfs(5)).
SILENCE_S = 90.0


@contextlib.contextmanager
def hold_lock(file: Path, label: str, wait_s: float) -> Iterator[None]:
    """Hold the lock file of the run `label`. Raises RunError where another process holds it for longer than `wait_s`
    seconds, or it cannot be locked.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{label} is being executed by another process; wait for it, or stop that one") from None
    except OSError as error:
        raise RunError(
            f"{file}: cannot be locked: {error.strerror}; give access to it, then do the same again"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(file: Path) -> bool | None:
    """Whether a process holds the lock file. A shared lock tells, for which being allowed to read it is enough.

    None where flock(2) does not tell: the file may not be read, or the disk has no flock, and filelock takes the mere
    existence of the file for the lock, which a process that was killed leaves behind.
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
    """Whether the owner has given a sign of life in the last SILENCE_S seconds: what a mere reader can tell."""
    try:
        return time.time() - owner_file.stat().st_mtime < SILENCE_S
    except OSError:
        return False


class Ownership:
    """Ownership of one run by this process; a context manager that keeps the heartbeat going.

    `lost` turns true when a heartbeat finds another owner's token.
    """

    def __init__(self, file: Path, label: str) -> None:
        self._file, self._label = file, label
        self._token = uuid.uuid4().hex
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.lost = False

    def __enter__(self) -> Ownership:
        owner = {"token": self._token, "node": socket.gethostname(), "pid": os.getpid()}
        replace_file(self._file, json_text(owner))
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()

    def check(self) -> None:
        """Raises TakenOverError where another process has taken the run over, RunError where nobody can tell."""
        if self._is_taken():
            self.lost = True
            raise TakenOverError(
                f"{self._label}: was taken over by another process while this one was silent; "
                "nothing more is written from here"
            )

    def _is_taken(self) -> bool:
        try:
            # Opening the file makes an NFS client ask the server, so the answer is never an old one.
            owner = read_json(self._file, records.OWNER)
        except OSError:
            return False  # The disk is away, and the write that follows says so.
        return owner is not None and owner["token"] != self._token

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            # A damaged owner file is told of by the next write.
            with contextlib.suppress(OSError, RunError):
                if self._is_taken():
                    self.lost = True
                    return
                os.utime(self._file)
