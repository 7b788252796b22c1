"""The metrics.jsonl of a script's run, made from what the script itself writes.

Each step has one row, of the last attempt that made it. An attempt that goes back to an earlier step replaces all that
was logged from there on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.files import append_lines, encode_lines, read_json, replace_file
from relay.runs.program_log import ProgramLog
from relay.runs.rundir import RunDir
from relay.scripts.sources import begun_anew, files_below, marks_of, read_sources

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
        # When the rows of this attempt were first seen, by step.
        self._seen: dict[int, float] = {}
        self._events: ProgramLog | None = None
        self._written: bytes | None = None
        self._next = 0.0
        # The step of the checkpoint that the attempt resumes from; None if that is not known.
        self._restored: int | None = None
        self._marks: dict[str, Sequence[int]] = {}
        # The first kind that `auto` has found. It stays, or the rows of a table at the end would replace all others.
        self._kind = read
        if saved := read_json(run.sources_file):
            self._restored, self._marks, self._kind = saved["restored"], saved["marks"], saved["kind"]
            self.follow(at_once=True)
            self.earlier = self.rows()

    def begin(self, restored: int | None) -> None:
        """A new attempt begins: all that the sources hold is of earlier ones. Once it logs rows, those after the step
        `restored` are dropped, or, without it, those from its first step on.
        """
        self.earlier = self.rows()
        self._restored = restored
        self.own, self._seen, self.first_seen = {}, {}, None
        self._marks = dict(marks_of([*files_below(self._folder), self._run.logged_file]))
        self._keep_marks()
        self._write()

    def _keep_marks(self) -> None:
        content = {"kind": self._kind, "restored": self._restored, "marks": self._marks}
        replace_file(self._run.sources_file, json.dumps(content), check=self._run.check_owner)

    def follow(self, *, at_once: bool = False, is_final: bool = False) -> Mapping[str, Any] | None:
        """Read on, if it is time to or `at_once`. `is_final`: the script has ended. Returns the last row if there are
        new ones.

        Raises DiskError if the rows cannot be written.
        """
        begun = time.monotonic()
        if not at_once and begun < self._next:
            return None
        if anew := begun_anew(self._marks):
            self._marks = {name: mark for name, mark in self._marks.items() if name not in anew}
            self._keep_marks()
        values = read_sources(self._kind, self._folder, self._marks, is_final=is_final)
        if values.kind and values.kind != self._kind:
            self._kind = values.kind
            self._keep_marks()
        reported = read_sources("jsonl", self._run.logged_file, self._marks, is_final=is_final)
        for step, row in reported.rows.items():
            values.add(step, row)
        self.own, self.total, self._is_history = values.rows, values.total or self.total, values.is_history
        if self.own and self.first_seen is None:
            self.first_seen = max(self.own)
        new = self._write()
        self._next = time.monotonic() + max(_EVERY_S, (time.monotonic() - begun) / _SHARE)
        return new[-1] if new else None

    @property
    def made(self) -> list[int]:
        """The steps that this attempt has logged, without those that it has only repeated: from a history, or one row
        at its start.
        """
        first = self._first()
        own = [step for step in self.own if first is None or step >= first]
        if not self._is_history:
            return own
        return [step for step in own if not _same(self.own[step], self.earlier.get(step, {}))]

    def leave(self) -> None:
        """Close the copy for TensorBoard."""
        if self._events:
            self._events.close()
            self._events = None

    def _first(self) -> int | None:
        """The first step that the attempt has made; None if that is not known yet.

        Many scripts log a row at each start, such as an evaluation at step 0: the next one then leaps over others.
        """
        own = sorted(self.own)[:2]
        leaps = own and any(own[0] < step and (len(own) < 2 or step < own[1]) for step in self.earlier)
        return (own[1] if len(own) > 1 else None) if leaps else next(iter(own), None)

    def rows(self) -> Rows:
        """All rows by step, in order."""
        rows = dict(self.earlier)
        first = self._first()
        # A script may count checkpoints from 0, and steps from 1: the row after the checkpoint may be one that it has.
        cut = first if self._restored is None else self._restored + 2
        if cut is not None and self.own:
            rows = {step: row for step, row in rows.items() if step < cut}
        for step, values in self.own.items():
            before = rows.get(step, {})
            seen = self._seen.setdefault(step, before.get("time", round(time.time(), 3)))
            rows[step] = {"step": step, "epoch": None, "time": seen, **before, **values}
        return {step: rows[step] for step in sorted(rows)}

    def _write(self) -> list[dict[str, Any]]:
        """Bring metrics.jsonl and its copy for TensorBoard up to date. Returns all rows, or none if nothing is new."""
        rows = [_without_gaps(row) for row in self.rows().values()]
        text = encode_lines(rows)
        if text == self._written:
            return []
        file, check, before = self._run.metrics_file, self._run.check_owner, self._written
        # Written whole the next time if the disk refuses a part of it.
        self._written = None
        if self._events and before is not None and text.startswith(before):
            append_lines(file, rows[before.count(b"\n") :], check=check)
        else:
            # A new file even if nothing differs: an earlier owner on a node that hung may still have the old one open.
            replace_file(file, text, check=check)
            if self._events:
                self._events.close()
            self._events = ProgramLog(self._run)
        self._events.copy()
        self._written = text
        return rows


def _same(row: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    # repr, because NaN does not equal itself.
    return all(repr(before.get(name)) == repr(value) for name, value in row.items())


def _without_gaps(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
