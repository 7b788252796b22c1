"""The settings of a sweep: rows that differ only in the seed are repetitions of one setting."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.results.intervals import Interval, t_interval
from src.results.table import SEED_AXIS, Row, Table


@dataclass(frozen=True)
class SettingResults:
    """The comparable runs of one setting, in the order of the seeds, and the selecting metric of each."""

    rows: Sequence[Row]
    values: Sequence[float]

    @property
    def name(self) -> str:
        """The name of its first run."""
        return str(self.rows[0]["run"])

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """The standard deviation between the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """Student's 95 % interval of the mean; None for one seed."""
        return t_interval(self.values)


def settings_of(table: Table) -> list[SettingResults]:
    """The settings with a comparable run, the best mean first."""
    ranked = {table.setting(row): None for row in table.ranked if table.is_comparable(row)}
    rows = table.comparable_rows()
    return [SettingResults(rows[key], [row[table.select.column] for row in rows[key]]) for key in ranked]


def pooled_sd(settings: Sequence[SettingResults]) -> tuple[float, int]:
    """The standard deviation between seeds, taken as equal in all settings, and its degrees of freedom; (0, 0) without
    repetitions.
    """
    degrees = sum(len(each.values) - 1 for each in settings)
    squares = sum(statistics.variance(each.values) * (len(each.values) - 1) for each in settings if each.sd is not None)
    return ((squares / degrees) ** 0.5, degrees) if degrees else (0.0, 0)


def seed_rows(table: Table) -> list[dict[str, Any]]:
    """One row per setting, the best mean first; [] if the seed is no axis.

    Columns: the axes but the seed, `n` seeds, and `mean`, `sd`, `low`, `high` (95 %, Student) of the selecting metric.
    """
    if SEED_AXIS not in table.axes:
        return []
    found = []
    for each in settings_of(table):
        low, high = each.interval or (None, None)
        axes = {axis: each.rows[0].get(axis) for axis in table.axes if axis != SEED_AXIS}
        found.append({**axes, "n": len(each.values), "mean": each.mean, "sd": each.sd, "low": low, "high": high})
    return found
