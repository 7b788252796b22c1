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
_NO_METRICS = (TABLE_COLUMNS - {*_OF_SETTINGS}) | {"step", "epoch", "time", "seed"}
# The largest value that metrics.jsonl may have, see relay/runs/records.py.
_MOST = 1e39


def number_of(name: str, value: Any) -> Any:
    """The number, or a tensor with one element on a GPU, which is read when the rows are written: reading waits for the
    GPU.
    """
    if name in _NO_METRICS or not isinstance(name, str):
        raise RelayError(f"run.log: {name!r} is a name of Relay's own columns; choose another one")
    if isinstance(value, bool | int | float):
        return value
    count = getattr(value, "numel", None) or getattr(value, "size", None)
    if not hasattr(value, "item") or (count() if callable(count) else count) != 1:
        raise RelayError(f"run.log: {name}: {value!r:.80} is no number; give a number, or a tensor with one element")
    return value.detach().clone() if getattr(value, "is_cuda", False) else value.item()


def read_number(value: Any) -> int | float:
    """The number that a row has in the file."""
    number = value if isinstance(value, int | float) else value.item()
    if isinstance(number, int) and abs(number) < 2**63:
        return int(number)
    # What is larger can be read by no table or figure; it has diverged.
    return math.copysign(math.inf, number) if abs(number) > _MOST else float(number)


def columns_of(returned: object) -> dict[str, Any]:
    """The columns that a program returns: numbers and texts by name. Raises RelayError for anything else."""
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise RelayError(f"the program returned {returned!r:.80}; return None or a dict of numbers and texts by name")
    return {
        str(name): value if isinstance(value, str) else read_number(number_of(str(name), value))
        for name, value in returned.items()
    }
