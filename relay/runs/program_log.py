"""What a program has written into its run, as its supervisor reads it: reports, and the rows of its metrics."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from relay.log import log
from relay.program.values import NO_METRICS
from relay.runs.event_file import EventFile
from relay.runs.rundir import RunDir


class _Lines:
    """The complete lines of a file that grows, as JSON objects. One that is damaged is skipped."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Those added since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return
        complete = content[: content.rfind(b"\n") + 1]
        self._read += len(complete)
        for line in complete.splitlines():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found


class Reports:
    """The reports of one attempt, see relay/program/contract.py."""

    def __init__(self, path: Path, attempt: int) -> None:
        self._lines, self._attempt = _Lines(path), attempt

    def new(self) -> list[dict[str, Any]]:
        """Those since the last call."""
        return [report for report in self._lines.new() if report.get("attempt") == self._attempt]


class ProgramLog:
    """Copies the rows of metrics.jsonl to TensorBoard while the program adds them.

    Made after the program has removed the rows that it repeats.
    """

    def __init__(self, run: RunDir) -> None:
        self._lines = _Lines(run.metrics_file)
        self._last: dict[str, Any] | None = None
        self._events: EventFile | None = None
        with self._without_disk_errors():
            self._events = EventFile(run)
            self._events.remove_others()

    def copy(self) -> dict[str, Any] | None:
        """Copy the new rows. Returns the last of them, None if there is none."""
        rows = list(self._lines.new())
        with self._without_disk_errors():
            for row in rows if self._events else ():
                values = {name: value for name, value in row.items() if name not in ("step", "time", "epoch")}
                assert self._events
                self._events.scalars(row["step"], values, row["time"])
            if rows and self._events:
                self._events.flush()
        return rows[-1] if rows else None

    def close(self) -> None:
        """Copy the rest, and close the file."""
        self.copy()
        if self._events:
            with self._without_disk_errors():
                self._events.close()

    @contextlib.contextmanager
    def _without_disk_errors(self) -> Iterator[None]:
        # A copy that cannot be written ends no run.
        try:
            yield
        except OSError as error:
            log.warning(f"TensorBoard's file cannot be written: {error.strerror}")
            self._events = None


def result_of(run: RunDir, end: Mapping[str, Any], select: str, direction: str) -> dict[str, Any]:
    """The result of a program that has returned: the metrics of its best row by `select`, and what it returned."""
    rows = run.metrics()
    sign = 1 if direction == "max" else -1
    scored = [row for row in rows if isinstance(row.get(select), int | float) and math.isfinite(row[select])]
    best = max(scored, key=lambda row: sign * row[select], default=None)
    if best is None:
        logged = dict.fromkeys(name for row in rows for name in row if name not in ("step", "epoch", "time"))
        log.warning(
            f"{run.label}: metrics.select.name: {select} was never logged, so the run has no value; logged: "
            f"{', '.join(logged) or 'nothing'}"
        )
    values = {name: value for name, value in (best or {}).items() if name not in ("step", "epoch", "time", select)}
    attempts = run.attempts()
    own = {
        select: best[select] if best else None,
        **{name: value for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)},
        "best_step": best["step"] if best else None,
        "steps": end["step"],
        "train_s": round(sum(each.seconds or 0 for each in attempts) + end["time"] - attempts[-1].start, 1),
    }
    returned = {name: value for name, value in end["columns"].items() if name not in own and name not in NO_METRICS}
    for name in end["columns"].keys() - returned.keys():
        log.warning(f"{run.label}: returned {name}, which is a column of Relay's; it is left out")
    early = end["step"] < end["total"]
    return {"outcome": "ended early" if early else "completed", "steps": end["step"], "columns": {**own, **returned}}
