"""The metrics.jsonl of a script's run, made from what the script itself writes.

Each step has one row, of the last attempt that made it. An attempt that goes back to an earlier step replaces all that
was logged from there on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.files import append_lines, encode_lines, read_json, replace_file
from relay.runs.program_log import ProgramLog
from relay.runs.rundir import RunDir
from relay.scripts.sources import Marks, files_below, marks_of, read_sources

Rows = Mapping[int, Mapping[str, Any]]
# Reading may take up to this share of the time.
_SHARE = 0.05
_EVERY_S = 1.0


class ScriptLog:
    """Follows the sources of one attempt: files of the kind `read` in `folder`, and the lines of `$RELAY_METRICS`.

    `earlier`: the rows of the attempts before, by step; `own`: what this attempt has logged. `total`: how many steps
    the run has, if a source tells. `first_seen`: the last step of the rows that were the first to be seen.
    """

    def __init__(self, run: RunDir, read: str, folder: Path) -> None:
        """Completes the rows of the attempt before, whose supervisor may have been killed."""
        self._run, self._read, self._folder = run, read, folder
        self.earlier: Rows = {row["step"]: row for row in run.metrics()}
        self.own: Rows = {}
        self.total: int | None = None
        self.first_seen: int | None = None
        self._is_history = False
        self._marks: Marks = read_json(run.sources_file) or {}
        # The first step of which no earlier row counts; None: the first one that this attempt logs.
        self._cut: int | None = None
        # When the rows of this attempt were first seen, by step.
        self._seen: dict[int, float] = {}
        self._events: ProgramLog | None = None
        self._written: bytes | None = None
        self._next = 0.0
        if run.sources_file.exists():
            self.follow(at_once=True)
            self.earlier = self.rows()

    def begin(self, restored: int | None) -> None:
        """A new attempt begins: all that the sources hold is of earlier ones. The rows after the step `restored` are
        dropped; without it, those from the first step on that the attempt logs.
        """
        self._cut = None if restored is None else restored + 1
        self.own, self._seen, self.first_seen = {}, {}, None
        self.earlier = self.rows()
        self._marks = marks_of([*files_below(self._folder), self._run.logged_file])
        replace_file(self._run.sources_file, json.dumps(self._marks), check=self._run.check_owner)
        self._write()

    def follow(self, *, at_once: bool = False) -> Mapping[str, Any] | None:
        """Read on, if it is time to or `at_once`. Returns the last row if there are new ones.

        Raises DiskError if the rows cannot be written.
        """
        begun = time.monotonic()
        if not at_once and begun < self._next:
            return None
        values = read_sources(self._read, self._folder, self._marks)
        for step, row in read_sources("jsonl", self._run.logged_file, self._marks).rows.items():
            values.add(step, row)
        self.own, self.total, self._is_history = values.rows, values.total or self.total, values.is_history
        if self.own and self.first_seen is None:
            self.first_seen = max(self.own)
        is_new = self._write()
        self._next = time.monotonic() + max(_EVERY_S, (time.monotonic() - begun) / _SHARE)
        rows = self.rows()
        return rows[max(rows)] if is_new and rows else None

    @property
    def made(self) -> list[int]:
        """The steps that this attempt has logged, without those that it has only repeated from a history."""
        if not self._is_history:
            return list(self.own)
        return [step for step, row in self.own.items() if not row.items() <= self.earlier.get(step, {}).items()]

    def leave(self) -> None:
        """Close the copy for TensorBoard."""
        if self._events:
            self._events.close()
            self._events = None

    def rows(self) -> Rows:
        """All rows by step, in order."""
        cut = min(self.own, default=None) if self._cut is None else self._cut
        rows = {step: row for step, row in self.earlier.items() if cut is None or step < cut}
        for step, values in self.own.items():
            before = rows.get(step, {})
            seen = self._seen.setdefault(step, before.get("time", round(time.time(), 3)))
            rows[step] = {"step": step, "epoch": None, "time": seen, **before, **values}
        return {step: rows[step] for step in sorted(rows)}

    def _write(self) -> bool:
        """Bring metrics.jsonl and its copy for TensorBoard up to date. Returns whether anything has changed."""
        text = encode_lines([_without_gaps(row) for row in self.rows().values()])
        if text == self._written:
            return False
        file, check = self._run.metrics_file, self._run.check_owner
        if self._events and self._written is not None and text.startswith(self._written):
            append_lines(file, read_back(text[len(self._written) :]), check=check)
        else:
            # A new file even if nothing differs: an earlier owner on a node that hung may still have the old one open.
            replace_file(file, text, check=check)
            if self._events:
                self._events.close()
            self._events = ProgramLog(self._run)
        self._events.copy()
        self._written = text
        return True


def read_back(text: bytes) -> list[dict[str, Any]]:
    """The records of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def _without_gaps(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
