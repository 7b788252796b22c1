"""Which rows and columns of a table are shown, in which order and by which metric: the options of hpc.aggregate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.config.yaml_file import parse_yaml
from relay.errors import RunError
from relay.results.tables.ranking import Direction, direction_of, ranking_of
from relay.results.tables.table import Table
from relay.text import shortlist

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class View:
    """`where`: conditions such as `lr=0.002`, all of which hold. `sort`: a column, `-COLUMN` for descending; rows
    without a value come last. `top`: how many rows. `columns`: which, in this order.
    """

    where: Sequence[str] = ()
    sort: str | None = None
    top: int | None = None
    columns: Sequence[str] = ()

    def of(self, rows: Rows) -> list[dict[str, Any]]:
        """The chosen rows and columns. Raises RunError if a column does not exist or a condition cannot be read."""
        known = list(rows[0]) if rows else []
        chosen = list(rows)
        for condition in self.where:
            name, equals, text = condition.partition("=")
            if not equals:
                raise RunError(f"--where {condition}: must be COLUMN=VALUE, such as state=done or lr=0.002")
            _check(name, known, "--where")
            wanted = parse_yaml(text, f"--where {name}")
            chosen = [row for row in chosen if _equal(row[name], wanted, text)]
        if self.sort:
            name = self.sort.removeprefix("-")
            _check(name, known, "--sort")
            valued = sorted((row for row in chosen if row[name] is not None), key=lambda row: _order(row[name]))
            if self.sort.startswith("-"):
                valued.reverse()
            chosen = [*valued, *(row for row in chosen if row[name] is None)]
        for name in self.columns:
            _check(name, known, "--columns")
        return [{name: row[name] for name in self.columns or known} for row in chosen[: self.top]]


def _check(name: str, known: Sequence[str], option: str) -> None:
    if name not in known:
        raise RunError(f"{option}: there is no column {name!r}; the columns are {', '.join(known)}")


def _equal(value: Any, wanted: Any, text: str) -> bool:
    """Whether a cell has the wanted value: as a number, or as its text."""
    return value == wanted if isinstance(value, int | float) or wanted is None else str(value) == text


def _order(value: Any) -> tuple[bool, Any]:
    """Numbers by value, then everything else by its text."""
    return (False, value) if isinstance(value, int | float) else (True, str(value))


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
