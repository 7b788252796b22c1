"""A run before it starts: as a command requests it, and as the manifest of its sweep keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
