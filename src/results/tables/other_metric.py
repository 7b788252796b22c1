"""Ranks the runs of a sweep by another column of its table than the one by which their best epochs were chosen."""

from __future__ import annotations

import dataclasses

from src.errors import RunError
from src.results.tables.ranking import Direction, direction_of, ranking_of
from src.results.tables.table import Table
from src.text import shortlist

# Columns of numbers that measure nothing.
_NO_METRICS = frozenset({"index", "attempts", "steps", "epochs", "best_epoch", "n"})


def ranked_by(table: Table, column: str, direction: Direction | None) -> tuple[Table, str]:
    """The table ranked by `column`, and a sentence that says which way is better and from which epoch its values are.

    Without a direction, the name of the column decides; `max` if it does not say. Raises RunError if it is no column of
    numbers.
    """
    columns = dict.fromkeys(name for row in table.rows for name in row)
    values = {name: [row.get(name) for row in table.rows] for name in columns if name not in table.axes}
    metrics = [name for name, own in values.items() if name not in _NO_METRICS and any(map(_is_number, own))]
    if column not in metrics:
        known = f"its metrics are {shortlist(metrics, 20)}" if metrics else "no run has measured anything yet"
        raise RunError(f"{table.name}: --metric {column} is not a metric in its table; {known}")
    own = table.select
    known_direction = own.direction if column == own.column else direction_of(column)
    found = direction or known_direction
    sentence = f"Ranked by {column}: {'lower' if found == 'min' else 'higher'} is better"
    if found is None:
        sentence += ", though its name does not say so: for the opposite, add --direction min"
    if column.startswith("val/") and column != own.column:
        sentence += f"; the values are those of the epoch with the best {own.column}"
    if column.startswith("train/"):
        sentence += "; the values are those of the last epoch"
    return dataclasses.replace(table, select=ranking_of(column, found or "max", values[column])), f"{sentence}."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
