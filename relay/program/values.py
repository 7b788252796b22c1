"""The numbers that a program logs and returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from relay.errors import RelayError

# Columns with another meaning than a metric or a parameter of this name: of the table of runs, of those of settings.
_OF_RUNS = ("index", "run", "runs", "state", "verdict", "best_step", "steps", "train_s", "interruptions", "error")
_OF_SETTINGS = ("n", "mean", "sd", "low", "high", "value")
TABLE_COLUMNS = frozenset((*_OF_RUNS, *_OF_SETTINGS, "environment", "attempts"))
# And the keys that every row of a log has; a metric is no column of settings.
NO_METRICS = (TABLE_COLUMNS - {*_OF_SETTINGS}) | {"step", "epoch", "time", "seed"}
# The largest value that metrics.jsonl may have, see relay/runs/records.py.
_MOST = 1e39


def metric_of(name: str, value: Any) -> Any:
    """`number_of` a logged value. Raises RelayError as well for the name of one of Relay's columns."""
    if name in NO_METRICS or not isinstance(name, str):
        raise RelayError(f"run.log: {name!r} is a name of Relay's own columns; choose another one")
    return number_of(f"run.log: {name}", value)


def number_of(what: str, value: Any) -> Any:
    """The number, or a tensor with one element on a GPU, which is read when the rows are written: reading waits for the
    GPU. Raises RelayError for anything else.
    """
    if isinstance(value, bool | int | float):
        return value
    count = getattr(value, "numel", None) or getattr(value, "size", None)
    if hasattr(value, "item") and (count() if callable(count) else count) == 1:
        if getattr(value, "is_cuda", False):
            return value.detach().clone()
        number = value.item()
        if isinstance(number, int | float):
            return number
    raise RelayError(f"{what}: {value!r:.80} is no number; give a number, or a tensor with one element")


def read_number(value: Any) -> int | float:
    """The number that a row has in the file."""
    number = value if isinstance(value, int | float) else value.item()
    if isinstance(number, int):
        return int(number) if abs(number) < 2**63 else math.inf if number > 0 else -math.inf
    # What is larger can be read by no table or figure; it has diverged.
    return math.copysign(math.inf, number) if abs(number) > _MOST else float(number)


def columns_of(returned: object) -> dict[str, Any]:
    """The columns that a program returns: numbers and texts by name. Raises RelayError for anything else."""
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise RelayError(f"the program returned {returned!r:.80}; return None or a dict of numbers and texts by name")
    columns: dict[str, Any] = {}
    for name, value in returned.items():
        number = value if isinstance(value, str) else read_number(number_of(f"the program returned {name}", value))
        # A value that is not finite says nothing, and JSON has none.
        columns[str(name)] = number if isinstance(number, str) or math.isfinite(number) else None
    return columns
