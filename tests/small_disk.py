"""A small file system for one test, with real faults: it can be full or read-only."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PAGE = 4096  # bytes; tmpfs counts whole pages


class Disk:
    """A tmpfs of 4096 pages. Skips the test if it cannot be mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        done = _mount("-t", "tmpfs", "-o", f"size={4096 * PAGE}", "none", str(path))
        if done.returncode:
            pytest.skip(f"mount is refused here: {done.stderr.strip()}")

    def leave(self, pages: int) -> None:
        """Leave so many pages free. With 0, a write that needs a page fails with ENOSPC."""
        used = subprocess.run(["du", "-s", "-B1", str(self.path)], capture_output=True, text=True, check=True)
        self._remount(f"size={max(int(used.stdout.split()[0]) // PAGE + pages, 1) * PAGE}")

    def make_room(self) -> None:
        """Restore the original size, and make it writable again."""
        self._remount(f"rw,size={4096 * PAGE}")

    def forbid_writing(self) -> None:
        """Remount it read-only. No process may have a file open for writing."""
        self._remount("ro")

    def _remount(self, options: str) -> None:
        done = _mount("-o", f"remount,{options}", str(self.path))
        assert done.returncode == 0, done.stderr


def _mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
