"""Builds what a power cut would leave of a run: only what was fsynced, at each moment at which that changes.

Two extremes bound what a file system may do. `strict`: names and contents are as they were at their last fsync.
`eager`: every name is on disk at once, and the contents are as they were at their last fsync, or empty.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any


class PowerCut:
    """Watches this process write into `run`, and writes an image of each possible result to `folder`."""

    def __init__(self, run: Path, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._folders = [run, run / "checkpoints"]
        self._synced: dict[int, tuple[bytes, int]] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._held: list[int] = []
        self._seen: set[str] = set()
        self._events: list[dict[str, Any]] = []
        for path in self._folders:
            path.mkdir(exist_ok=True)
            for file in path.iterdir():
                if file.is_file():
                    self._hold(file)
                    self._sync(file)
            self._names[path] = self._list(path)
        self._fsync = os.fsync
        os.fsync = self._watch_fsync  # type: ignore[assignment]
        sys.addaudithook(self._watch)

    def events(self) -> list[dict[str, Any]]:
        """Each fsync, rename and remove in order, with what was durable at that moment."""
        return self._events

    def _hold(self, path: Path) -> None:
        # The kernel does not reuse the inode number of a file that is open, even after its removal.
        self._held.append(os.open(path, os.O_RDONLY))

    def _sync(self, path: Path) -> None:
        facts = path.stat()
        self._synced[facts.st_ino] = (path.read_bytes(), facts.st_mtime_ns)

    def _list(self, folder: Path) -> dict[str, int]:
        return {file.name: file.stat().st_ino for file in folder.iterdir() if file.is_file()}

    def _watch_fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self._names[path] = self._list(path)
            for file in self._names[path]:
                self._hold(path / file)
        else:
            self._hold(path)
            self._sync(path)
        self._note("fsync", path)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.remove"):
            path = Path(arguments[0])
            if path.parent in self._folders and path.exists():
                self._note(event[3:], path, Path(arguments[1]).name if event == "os.rename" else "")

    def _note(self, what: str, path: Path, to: str = "") -> None:
        """Record the event, and what a power cut right before it would leave."""
        now = {str(file): self._is_synced(file) for folder in self._folders for file in folder.iterdir()}
        event = {
            "what": what,
            "name": path.name,
            "to": to,
            "whole": now.get(str(path), True),
            "rows_whole": now.get(str(self._run / "metrics.jsonl"), True),
            "states": sorted(name for name in self._names[self._run / "checkpoints"] if name.startswith("step_")),
        }
        self._events.append(event)
        self._image({folder: self._list(folder) for folder in self._folders}, "eager")
        self._image(self._names, "strict")

    def _is_synced(self, path: Path) -> bool:
        return path.is_dir() or self._synced.get(path.stat().st_ino, (None, 0))[0] == path.read_bytes()

    def _image(self, names: dict[Path, dict[str, int]], kind: str) -> None:
        files = {
            folder.relative_to(self._run) / name: self._synced.get(inode, (b"", 0))
            for folder, listed in names.items()
            for name, inode in listed.items()
        }
        key = hashlib.sha256(b"".join(str(p).encode() + b"\0" + files[p][0] for p in sorted(files))).hexdigest()
        if key in self._seen:
            return
        self._seen.add(key)
        image = self._folder / f"{len(self._seen):03d}-{kind}"
        (image / "checkpoints").mkdir(parents=True)
        for path, (content, modified_ns) in files.items():
            (image / path).write_bytes(content)
            os.utime(image / path, ns=(modified_ns, modified_ns))
