"""A cell: one point of a grid, or the only run of a command that runs no grid, as it is planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One run as it is planned: `name` is the name of its directory, `overrides` maps key paths to values.

    `config`: the text of its config.yaml, which only its work reads. `key`: equal for two cells if and only if their
    runs have the same result. `cost_key`: equal if a unit of work takes the same time; `units`: how many it has.
    """

    index: int
    name: str
    overrides: Mapping[str, Any]
    config: str
    key: str
    cost_key: str
    units: float
