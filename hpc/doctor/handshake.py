"""The files through which a login node and a compute node test the file system that they share.

The login node (`probe.py`) and the task on the node (`node_report.py`) each hold a lock that the other one must not
get, and each waits for a file that the other one replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from relay.files import replace_file

POLL_S = 0.1  # how often either side looks for the file that it waits for


@dataclass(frozen=True)
class Handshake:
    """Names the files of the exchange in `folder`. Either side may be on another machine."""

    folder: Path

    @property
    def asker_lock(self) -> Path:
        """The lock that the login node holds during the whole exchange."""
        return self.folder / "asker.lock"

    @property
    def node_lock(self) -> Path:
        """The lock that the task holds from before it writes `ready` until it has seen `ack`."""
        return self.folder / "node.lock"

    @property
    def ready(self) -> Path:
        """Written by the task first: its host and its clock."""
        return self.folder / "ready.json"

    @property
    def ack(self) -> Path:
        """Exists from the start. The login node replaces it as soon as it has seen `ready`."""
        return self.folder / "ack.json"

    @property
    def report(self) -> Path:
        """Written by the task last: all that it found."""
        return self.folder / "report.json"


@dataclass(frozen=True)
class ProbeResult:
    """The task's report, and what the login node observed of the task.

    `began_s`: seconds until the task began. `node_lock`: result of `try_lock` on its lock. `clock_s`: seconds from the
    node's clock to ours, including the time until its file was seen.
    """

    report: Mapping[str, Any]
    began_s: float
    node_lock: str
    clock_s: float


def try_lock(file: TextIO) -> str:
    """Returns `taken`, `refused` if another process holds the lock, or the error message of the system."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "refused"
    except OSError as error:
        return str(error.strerror)
    return "taken"


@contextmanager
def open_handshake(folder: Path) -> Iterator[Handshake]:
    """Create the files of the login node in `folder` and hold its lock."""
    handshake = Handshake(folder)
    replace_file(handshake.ack, "{}")
    with handshake.asker_lock.open("w") as file:
        try_lock(file)
        yield handshake
