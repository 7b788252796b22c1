"""A file system of its own for a test, with real faults: its size is changed, or it can only be read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PAGE = 4096


class Disk:
    """A file system in memory, whose size is counted in pages of 4096 bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        done = _mount("-t", "tmpfs", "-o", f"size={4096 * PAGE}", "none", str(path))
        if done.returncode:
            pytest.skip(f"mount is refused here: {done.stderr.strip()}")

    def leave(self, pages: int) -> None:
        """Let there be so many free pages; where there is none, whoever needs one finds the disk full."""
        used = subprocess.run(["du", "-s", "-B1", str(self.path)], capture_output=True, text=True, check=True)
        self._remount(f"size={max(int(used.stdout.split()[0]) // PAGE + pages, 1) * PAGE}")

    def make_room(self) -> None:
        """Give it its first size back, and the right to write."""
        self._remount(f"rw,size={4096 * PAGE}")

    def forbid_writing(self) -> None:
        """From now on it can only be read. Nobody may have a file open for writing."""
        self._remount("ro")

    def _remount(self, options: str) -> None:
        done = _mount("-o", f"remount,{options}", str(self.path))
        assert done.returncode == 0, done.stderr


def _mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
