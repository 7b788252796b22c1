"""How early can one know? The ranking of the cells after each epoch, compared with the final one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.results.tables.table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The epochs and the values of the selecting metric.
Curve = tuple[Sequence[float], Sequence[float]]
# A ranking that correlates as much is as good as final.
_CLOSE = 0.9


@dataclass(frozen=True)
class Early:
    """Per epoch, counted from 1: Spearman's correlation with the final ranking, and the rank of the best cell."""

    cells: int
    epochs: Sequence[float]
    correlations: Sequence[float]
    best_ranks: Sequence[int]
    unit: str = "epoch"

    @property
    def at(self) -> int:
        """The number of the first epoch whose ranking is close to the final one, or of the last epoch but one."""
        close = (n for n, correlation in enumerate(self.correlations[:-1]) if correlation >= _CLOSE)
        return next(close, max(0, len(self.epochs) - 2))

    @property
    def sentence(self) -> str:
        """What is known after the epoch `at`."""
        at = self.at
        only = "" if self.correlations[at] >= _CLOSE else "only "
        rank = self.best_ranks[at]
        where = "already leads" if rank == 1 else f"is then among the first {rank} of {self.cells}"
        return (
            f"After {self.unit} {self.epochs[at]:g} of {self.epochs[-1]:g} the ranking correlates {only}"
            f"{self.correlations[at]:.2f} with the final one; the best cell {where}."
        )


def how_early(table: Table, curves: Mapping[str, Curve]) -> Early | None:
    """Compare the rankings by the best value so far, after each epoch that all comparable runs have.

    None for fewer than three runs with curves, or fewer than two epochs.
    """
    rows = [row for row in table.ranked if table.is_comparable(row) and len(curves.get(row["run"], ((),))[0])]
    if len(rows) < 3:
        return None
    import numpy as np
    from scipy import stats

    known = [dict(zip(*curves[row["run"]], strict=True)) for row in rows]
    epochs = sorted(set.intersection(*(set(values) for values in known)))
    score = table.select.score
    values = np.array([[score(values[epoch]) for epoch in epochs] for values in known])
    so_far = np.maximum.accumulate(values, axis=1)
    final = np.array([score(row[table.select.column]) for row in rows])
    ranks = stats.rankdata(so_far, axis=0)
    # Before anything is learned, all cells may be equal: there is no ranking.
    known_epochs = [n for n in range(len(epochs)) if np.ptp(ranks[:, n]) and np.isfinite(so_far[:, n]).all()]
    if len(known_epochs) < 2 or not np.ptp(final):
        return None
    return Early(
        len(rows),
        [epochs_trained(epochs)[n] for n in known_epochs],
        [_correlation(ranks[:, n], stats.rankdata(final)) for n in known_epochs],
        # The rows are ranked: the first is the best. Ties count against it.
        [int(np.sum(so_far[:, n] >= so_far[0, n])) for n in known_epochs],
        table.unit,
    )


def epochs_trained(epochs: Sequence[float]) -> list[float]:
    """The epochs counted from 1; other programs than ours count from 0."""
    first = 1 if epochs[0] == 0 else 0
    return [epoch + first for epoch in epochs]


def _correlation(first: NDArray[np.float64], second: Any) -> float:
    import numpy as np

    return float(np.corrcoef(first, second)[0, 1])
