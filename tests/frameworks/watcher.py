"""Looks at /proc all the time: which processes execute a run, and whether there are ever two of them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path

from hpc.processes import command_line, pids

_EVERY_S = 0.05


def executing(folder: Path, script: str) -> dict[Path, set[int]]:
    """Current folder, `folder` or below it, -> the process groups there that execute the script.

    A script that Relay starts leads a group of its own, to which the workers of its data loaders belong as well. What
    is left of an earlier attempt, be it a worker, is thus a second group.
    """
    found: dict[Path, set[int]] = defaultdict(set)
    for pid in pids():
        # Gone, or ended and not waited for.
        with contextlib.suppress(OSError):
            current = Path(f"/proc/{pid}/cwd").readlink()
            if current.is_relative_to(folder) and script in command_line(pid):
                found[current].add(os.getpgid(pid))
    return found


class Watcher:
    """Watches all runs whose work folders are below `folder`, while it is entered."""

    def __init__(self, folder: Path, script: str) -> None:
        self._folder, self._script = folder, script
        self._leaves = threading.Event()
        self._thread = threading.Thread(target=self._look)
        # Current folder -> all groups that were ever seen there, one for each attempt.
        self.seen: dict[Path, set[int]] = defaultdict(set)
        # Groups that were seen at one moment.
        self.together: list[tuple[Path, set[int]]] = []
        self.looks = 0

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leaves.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._leaves.wait(_EVERY_S):
            for current, groups in executing(self._folder, self._script).items():
                self.seen[current] |= groups
                if len(groups) > 1:
                    self.together.append((current, groups))
            self.looks += 1


def pid_of(work: Path, script: str) -> int | None:
    """The script that executes the run with this work folder, None if nothing does."""
    return max(executing(work, script).get(work, ()), default=None)


def is_told(pid: int) -> bool:
    """Whether SIGTERM waits for a process that is stopped."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        waiting = next(line.split()[1] for line in lines if line.startswith("ShdPnd:"))
        return bool(int(waiting, 16) >> (signal.SIGTERM - 1) & 1)
    return False


def continue_once_told(pid: int, timeout_s: float) -> threading.Thread:
    """Let a stopped script continue as soon as it is told to end: the signal comes in the middle of its training,
    however fast the machine is. One that is never told stays as it is. Returns the thread that waits.
    """

    def wait() -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if is_told(pid):
                os.kill(pid, signal.SIGCONT)
                return
            time.sleep(_EVERY_S)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
