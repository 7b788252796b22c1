"""The files by which the login node and a task on a compute node test what the two share: locks, files, clocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from src.files import replace_file

POLL_S = 0.1


@dataclass(frozen=True)
class Handshake:
    """The folder in which the two sides meet, and its files."""

    folder: Path

    @property
    def asker_lock(self) -> Path:
        """Held by who asks, all the time."""
        return self.folder / "asker.lock"

    @property
    def node_lock(self) -> Path:
        """Held by the node from before `ready` until it has seen `ack`."""
        return self.folder / "node.lock"

    @property
    def ready(self) -> Path:
        """The node's first word."""
        return self.folder / "ready.json"

    @property
    def ack(self) -> Path:
        """There from the start; replaced by who asks when it has seen `ready`."""
        return self.folder / "ack.json"

    @property
    def report(self) -> Path:
        """The node's last word."""
        return self.folder / "report.json"


@dataclass(frozen=True)
class ProbeResult:
    """The node's report, and what was seen of it from here: seconds until it began, its lock, its clock."""

    report: Mapping[str, Any]
    began_s: float
    node_lock: str
    clock_s: float


def try_lock(file: TextIO) -> str:
    """`taken`, `refused` where another process holds it, or the system's word for what is wrong."""
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
    """The files of a handshake, with the lock held that the other side is to see."""
    handshake = Handshake(folder)
    replace_file(handshake.ack, "{}")
    with handshake.asker_lock.open("w") as file:
        try_lock(file)
        yield handshake
