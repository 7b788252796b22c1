"""Runs that failed: diverged, crashed, or collapsed, which is a value far below what the rest of the grid suggests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.results.statistics.design import LEAST_DEGREES, Design
from relay.results.tables.table import Row, Table
from relay.runs.cells import axis_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# States of runs whose hyperparameters may be the reason. A cancelled or lost run says nothing about them.
FAILED = ("diverged", "crashed", "out_of_memory")
_COLLAPSED = 0.01
_MOST_COLLAPSED = 0.1
_NAMED = 4.0
# Residuals that differ by less are equal up to rounding.
_TIED = 1e-6


@dataclass(frozen=True)
class LevelFailures:
    """Of the `runs` that ended with the value of an axis, `failed` did.

    `p_value`: of so many failures by chance, corrected for all values of all axes. `dropped`: whether at least half of
    them failed, so that the value is not compared with the others.
    """

    value: Any
    failed: int
    runs: int
    p_value: float
    dropped: bool


@dataclass(frozen=True)
class Outliers:
    """Numbers of settings: `collapsed`, which are left out, and `far`, more than four standard deviations off."""

    collapsed: Sequence[int]
    far: Sequence[int]


def find_outliers(values: NDArray[np.float64], design_of: Callable[[Sequence[int]], Design]) -> Outliers:
    """The settings whose values do not fit the model of the grid, by their externally studentised residuals (Cook and
    Weisberg, Residuals and Influence in Regression, 1982). One seed per setting.

    `values`: higher is better, (K,). `design_of`: the model of the settings with these numbers. A value that is too
    good is far, but never collapsed.
    """
    import numpy as np
    from scipy import stats

    kept, collapsed = list(range(len(values))), list[int]()
    while True:
        design = design_of(kept)
        if design.degrees < LEAST_DEGREES:
            return Outliers(collapsed, [])
        own, basis = values[kept], design.basis
        residuals = own - basis @ (basis.T @ own)
        free = 1 - (basis**2).sum(axis=1)
        squares = residuals**2 / np.where(free > 1e-9, free, np.inf)
        total = float((residuals**2).sum())
        if total <= (1e-9 * float(np.abs(own).max())) ** 2:
            return Outliers(collapsed, [])
        rest = np.maximum((total - squares) / (design.degrees - 1), 1e-12 * total)
        distances = np.sqrt(squares / rest)
        # An axis of two values gives both cells residuals of one size: the worst is the one far from all others.
        largest = np.flatnonzero(distances >= (1 - _TIED) * distances.max())
        worst = int(largest[np.abs(own[largest] - np.median(own)).argmax()])
        p_value = 2 * float(stats.t.sf(distances[worst], design.degrees - 1))
        most = max(1, int(_MOST_COLLAPSED * len(values)))
        fits = p_value >= _COLLAPSED / len(kept) or residuals[worst] > 0 or len(collapsed) >= most
        # Without it, the noise of the others must still be known.
        if fits or design_of([*kept[:worst], *kept[worst + 1 :]]).degrees < LEAST_DEGREES:
            far = [number for number in np.flatnonzero(distances > _NAMED) if number == worst or number not in largest]
            return Outliers(collapsed, [kept[number] for number in far])
        collapsed.append(kept.pop(worst))


def failures_of(table: Table, axes: Sequence[str], collapsed: Sequence[str]) -> dict[str, list[LevelFailures]]:
    """For each axis with failures, its values that have any. `collapsed`: names of runs.

    A value with at least half of its runs failed is dropped, the worst one first. The failures of its runs do not count
    for the values of other axes.
    """
    from scipy import stats

    failed = {str(row["run"]) for row in table.rows if row["state"] in FAILED} | set(collapsed)
    rows = [row for row in table.rows if str(row["run"]) in failed or table.is_comparable(row)]
    if not failed:
        return {}
    dropped, kept = _dropped(rows, axes, failed)
    levels = {axis: _by_level(rows, axis) for axis in axes}
    number = sum(len(own) for own in levels.values() if len(own) > 1)
    found: dict[str, list[LevelFailures]] = {}
    for axis, own in levels.items():
        remaining = _by_level(kept, axis)
        for key, members in own.items():
            is_dropped = (axis, key) in dropped
            everyone = rows if is_dropped else kept
            counted = members if is_dropped else remaining.get(key, [])
            count = _count(counted, failed)
            if count and len(own) > 1:
                chance = float(stats.hypergeom.sf(count - 1, len(everyone), _count(everyone, failed), len(counted)))
                level = LevelFailures(members[0].get(axis), count, len(counted), min(1.0, chance * number), is_dropped)
                found.setdefault(axis, []).append(level)
    return found


def _count(rows: Sequence[Row], failed: set[str]) -> int:
    return sum(str(row["run"]) in failed for row in rows)


def _dropped(rows: Sequence[Row], axes: Sequence[str], failed: set[str]) -> tuple[set[tuple[str, Any]], list[Row]]:
    """The values that are dropped, as axis and key, and the rows that are kept."""
    dropped: set[tuple[str, Any]] = set()
    kept = list(rows)
    while True:
        worst, worst_share = None, 0.0
        for axis in axes:
            levels = _by_level(kept, axis)
            for key, members in levels.items():
                share = _count(members, failed) / len(members)
                if len(levels) > 1 and 2 * share >= 1 and share > worst_share:
                    worst, worst_share = (axis, key), share
        if worst is None:
            return dropped, kept
        dropped.add(worst)
        kept = [row for row in kept if axis_key(row.get(worst[0])) != worst[1]]


def _by_level(rows: Sequence[Row], axis: str) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(axis_key(row.get(axis)), []).append(row)
    return found
