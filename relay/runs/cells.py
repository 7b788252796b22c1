"""A run before it starts, as it is requested and as the manifest of its sweep keeps it; and the axes of a sweep.

Axes are the key paths whose values differ between its cells.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The name of an axis of seeds: cells that differ in it alone repeat one setting.
SEED_AXIS = "seed"


@dataclass(frozen=True)
class Cell:
    """One point of a grid, or the only run of a command that runs no grid, as it is requested.

    `name` is the name of its directory, `overrides` maps key paths to values.

    `config`: the text of its config.yaml, a YAML mapping that only its work reads. `key`: equal for two cells if and
    only if their runs have the same result, whatever requested them, so it holds the name of what they do. `cost_key`:
    equal if a unit of work takes the same time; `units`: how many it has.
    """

    index: int
    name: str
    overrides: Mapping[str, Any]
    config: str
    key: str
    cost_key: str
    units: float


@dataclass(frozen=True)
class PlannedRun:
    """A line of cells.jsonl: a cell without the text of its configuration. `data`: the digest of its data, if known."""

    index: int
    name: str
    overrides: Mapping[str, Any]
    key: str
    cost_key: str
    units: float
    data: str | None = None


def axis_value(value: Any) -> Any:
    """A value of an axis as tables show it: a list as 64-64-64."""
    return "-".join(map(str, value)) if isinstance(value, list) else value


def axis_key(value: Any) -> Hashable:
    """Equal for values of an axis that are the same: numbers by their value, all others by their type and text, so that
    null, "None", 0 and false are four values.
    """
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return value
    # A value may be a list or a section, which no set can hold.
    return f"{type(value).__name__} {value}"


def varying_paths(cells: Sequence[PlannedRun]) -> list[str]:
    """The key paths whose values differ between the cells, in the order of the overrides."""
    paths = dict.fromkeys(path for cell in cells for path in cell.overrides)
    return [path for path in paths if len({axis_key(cell.overrides.get(path)) for cell in cells}) > 1]
