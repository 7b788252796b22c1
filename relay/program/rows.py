"""The rows of metrics.jsonl, written so that a resumed run has the same rows as one that never stopped.

The file is append-only during an attempt. A saved state holds how much of it the state has seen; when the run resumes,
later rows are removed, because their steps are repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from relay.errors import RunError
from relay.files import append_lines, encode_lines, replace_file


class Seen(NamedTuple):
    """The rows that a state has seen: their size in bytes, and their SHA-256."""

    size: int = 0
    digest: str = hashlib.sha256().hexdigest()


class Rows:
    """Adds rows to the file of one run."""

    def __init__(self, path: Path, seen: Seen | None, check: Callable[[], None]) -> None:
        """Remove the rows after those that were `seen`; none if that is None.

        `check` is called before a row is written, and may raise to prevent it. Raises RunError if the rows that were
        seen are not there: later steps cannot replace them. Raises OSError if the disk refuses.
        """
        self._path, self._check = path, check
        self._pending: list[Mapping[str, Any]] = []
        self._digest = hashlib.sha256() if seen is None else _truncate(path, seen)
        self._size = 0 if seen is None else seen.size

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row. It is durable after `flush`."""
        self._pending.append(row)

    def flush(self) -> Seen:
        """Make all rows durable. Returns what the next state has seen."""
        if self._pending:
            self._size = append_lines(self._path, self._pending, check=self._check)
            self._digest.update(encode_lines(self._pending))
            self._pending.clear()
        return Seen(self._size, self._digest.hexdigest())


def _truncate(path: Path, seen: Seen) -> hashlib._Hash:
    """Remove the rows after those that were seen. Returns their running digest."""
    content = path.read_bytes() if path.exists() else b""
    if len(content) < seen.size:
        raise RunError(
            f"{path}: has {len(content)} bytes, but the checkpoint has seen {seen.size}: rows were lost; "
            "restore the file"
        )
    digest = hashlib.sha256(content[: seen.size])
    if digest.hexdigest() != seen.digest:
        raise RunError(
            f"{path}: its first {seen.size} bytes are not those that the checkpoint has seen: rows were damaged or "
            "changed; restore the file, or start the run over with --fresh"
        )
    if content:
        # A new file even if nothing is removed: an earlier owner on a node that hung may still have the old one open.
        replace_file(path, content[: seen.size])
    return digest
