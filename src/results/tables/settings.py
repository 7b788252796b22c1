"""The settings of a sweep: rows that differ only in the seed are repetitions of one setting."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from src.results.tables.table import Row, Table


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


def settings_of(table: Table) -> list[SettingResults]:
    """The settings with a comparable run, the best mean first."""
    ranked = {table.setting(row): None for row in table.ranked if table.is_comparable(row)}
    rows = table.comparable_rows()
    return [SettingResults(rows[key], [row[table.select.column] for row in rows[key]]) for key in ranked]
