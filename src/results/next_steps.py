"""What a finished search leaves open: values beyond the edge of an axis, and epochs beyond the last one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from src.results.statements import Say
from src.results.tables.table import Row, Table
from src.results.tables.terminal import show_value
from src.runs.axes import SEED_AXIS, axis_key

# Of two values, one is always at the edge, whatever the results are.
_LEAST_VALUES = 3


@dataclass(frozen=True)
class Edge:
    """The best setting has the `largest` or `smallest` value of an axis that was searched."""

    axis: str
    value: float
    side: Literal["largest", "smallest"]


def edges_of(table: Table, best: Row) -> list[Edge]:
    """The axes with at least three numbers on which `best`, a row of the best setting, has the largest or smallest.

    All rows count, finished or not: values that failed, or are still to come, were searched, too. A smallest value of
    0, or of 1 among whole numbers, is no edge: nothing lies beyond it. Nor is a value that is not better than any
    other one yet.
    """
    found = []
    for axis in table.axes:
        values = {number for row in table.rows if (number := _number(row.get(axis))) is not None}
        own = _number(best.get(axis))
        if axis == SEED_AXIS or own is None or len(values) < _LEAST_VALUES or not _is_better(table, best, axis):
            continue
        ends_there = own == 0 or (own == 1 and all(value == round(value) for value in values))
        if own == max(values):
            found.append(Edge(axis, own, "largest"))
        elif own == min(values) and not ends_there:
            found.append(Edge(axis, own, "smallest"))
    return found


def _is_better(table: Table, best: Row, axis: str) -> bool:
    """Whether `best` is better than a run with another value of an axis."""
    column, score = table.select.column, table.select.score
    others = (row for row in table.rows if table.is_comparable(row) and axis_key(row[axis]) != axis_key(best[axis]))
    return any(score(row[column]) < score(best[column]) for row in others)


def _number(value: Any) -> float | None:
    return value if type(value) in (int, float) and math.isfinite(value) else None


def search_statements(table: Table, best: Row, say: Say) -> list[str]:
    """What a search leaves open, in sentences. `best`: the row of the best run of the best setting."""
    edges = [say(f"edge_{edge.side}", axis=edge.axis, value=show_value(edge.value)) for edge in edges_of(table, best)]
    return [*edges, *last_epoch_statements(str(best["run"]), best, say)]


def last_epoch_statements(run: str, row: Mapping[str, Any], say: Say) -> list[str]:
    """A sentence if the best epoch is the last of several: `best_epoch` and `epochs` of a row of a table."""
    best, epochs = row.get("best_epoch"), row.get("epochs")
    if best is None or epochs is None or best < epochs or epochs <= 1:
        return []
    return [say("last_epoch", run=run, epoch=show_value(best), epochs=show_value(epochs))]
