"""The axes of a sweep: the key paths whose values differ between its cells; how values are compared and shown."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from relay.runs.cells import PlannedRun

# The name of an axis of seeds: cells that differ in it alone repeat one setting.
SEED_AXIS = "seed"


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
