"""What a program logs: one row per step, and the weights of the best one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.errors import RelayError
from relay.files import encode_lines, replace_file
from relay.program.contract import Order
from relay.program.rows import Rows, Seen
from relay.program.serialization import to_bytes
from relay.program.values import metric_of, read_number

# For people who watch the run. A state flushes the rows in any case.
_FLUSH_EVERY_S = 10.0
# The largest number of steps that metrics.jsonl may have, see relay/runs/records.py.
MOST_STEPS = 10**15


class Logbook:
    """The rows of one attempt, which begins at step `first`. `step`: that of the newest row. `best`: the best value of
    `metrics.select` so far.
    """

    def __init__(self, order: Order, seen: Seen, first: int, best: float | None) -> None:
        self._order, self.step, self.best = order, first, best
        # Those of a command's other processes stay.
        self._rows = Rows(Path(order.metrics), seen if order.function else None, order.check_owner)
        self._row: dict[str, Any] = {}
        # Complete rows that are not written yet; a value may be a tensor on a GPU.
        self._waiting: list[dict[str, Any]] = []
        # The best weights of the current step, as the file will have them.
        self._new_best: bytes | None = None
        self._flushed_at = time.monotonic()

    def add(self, values: Mapping[str, Any], step: Any, per_epoch: int | None, best: Any) -> None:
        """Add values to the row of `step`, which is ended by the first one of a later step.

        `best`: whose weights are kept if its value is the best so far. Raises RelayError for what is no number, and for
        a step before that of an earlier row.
        """
        row = {name: metric_of(name, value) for name, value in values.items()}
        if isinstance(step, bool) or not isinstance(step, int) or not self.step <= step <= MOST_STEPS:
            raise RelayError(
                f"run.log: step={step!r}: give the number of completed steps, a whole number, and none below the one "
                f"before it ({self.step})"
            )
        self.step = step
        if self._row and self._row["step"] != step:
            self.end_row()
        if not self._row:
            epoch = {"epoch": step / per_epoch} if per_epoch else {}
            self._row = {"step": step, **epoch, "time": round(time.time(), 3)}
        self._row.update(row)
        if best is not None and self._order.select in row:
            self._keep_if_best(row[self._order.select], best, step)

    def end_row(self) -> None:
        """Nothing more is added to the current row. Writes the weights that it has found to be the best."""
        if self._row and not self._order.function:
            self._write_at_once()
        elif self._row:
            self._waiting.append(self._row)
            self._row = {}
        if self._new_best is not None:
            # The row first: best.ckpt must not name a step that the metrics do not have.
            self.flush()
            replace_file(Path(self._order.best), self._new_best, check=self._order.check_owner)
            self._new_best = None

    def _write_at_once(self) -> None:
        """For the supervisor of a command, which may resume from a checkpoint of its own at any moment. The rows of its
        processes are in one file.
        """
        self._order.check_owner()
        with Path(self._order.metrics).open("ab") as file:
            file.write(encode_lines([{name: read_number(value) for name, value in self._row.items()}]))
        self._row = {}

    def flush_if_due(self, now: float) -> None:
        """Write the complete rows if the last ones were written some seconds ago."""
        if now - self._flushed_at > _FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> Seen:
        """Write the complete rows. Returns what the next state has seen."""
        self._flushed_at = time.monotonic()
        for row in self._waiting:
            self._rows.add({name: read_number(value) for name, value in row.items()})
        self._waiting.clear()
        return self._rows.flush()

    def _keep_if_best(self, value: Any, best: Any, step: int) -> None:
        value, select = float(value), self._order.select
        sign = 1 if self._order.direction == "max" else -1
        if value != value or (self.best is not None and sign * value <= sign * self.best):
            return
        self.best = value
        weights = best.state_dict() if hasattr(best, "state_dict") else dict(best)
        content = {"model_state_dict": weights, "step": step, "metrics": {select: value}, "run": self._order.label}
        # As bytes: the program may change the weights before the step ends.
        self._new_best = to_bytes(content)
