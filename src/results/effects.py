"""What each hyperparameter of a grid did: the analysis of variance of the selecting metric.

Each axis is a factor with the values of the axis as levels; the seed is a repetition. On a complete grid, the sums of
squares of main effects and pair interactions are exact and add up. On an incomplete one they are differences of least
squares fits (type II: each term is added to a model with all others of its order): their shares need not add up.

The noise is estimated from the repetitions; without them from what main effects and pairs leave, which is noise and
higher interactions. With two axes and no repetitions, their interaction takes that place. Montgomery, Design and
Analysis of Experiments, chapters 5 and 13.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from src.results.intervals import LEVEL, Interval, selection_quantile
from src.results.table import SEED_AXIS, Table
from src.results.terminal import show_value
from src.runs.hparams import axis_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # By the numbers of the axes of a term: its columns of a design matrix, float (runs, columns).
    Columns = dict[tuple[int, ...], NDArray[np.float64]]
# Likewise its sum of squares and degrees of freedom.
Squares = dict[tuple[int, ...], tuple[float, int]]
# An incomplete grid is fitted with all pairs if the fit has at most this many columns.
_MOST_COLUMNS = 1000
# More digits than a metric has: below this share of the total, a sum of squares is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Term:
    """A main effect (one axis) or an interaction (two): its `share` of the variance between cells, and the `p_value` of
    its F test.

    Both are None if the term cannot be told apart from others, `p_value` also if there is no estimate of the noise.
    """

    axes: tuple[str, ...]
    share: float | None
    p_value: float | None
    degrees: int

    @property
    def name(self) -> str:
        """`lr`, or `lr x weight_decay`."""
        return " x ".join(self.axes)


@dataclass(frozen=True)
class Level:
    """A value of an axis: the mean of the metric, adjusted for the other axes, and its 95 % interval, if known."""

    value: Any
    n: int
    mean: float
    interval: Interval | None

    @property
    def shown(self) -> str:
        """The value in a sentence or a figure, where an empty text would say nothing."""
        return "none" if self.value is None else show_value(self.value)


@dataclass(frozen=True)
class Effects:
    """The effects in a table of `runs` runs in `cells` settings. `levels`: by axis, in the order of the values.

    `noise`: the standard deviation of a single run around what the terms explain, with its `degrees` of freedom; None
    if nothing is left to estimate it from. `noise_source`: `seeds`, `higher interactions`, or `the interaction`.
    `repetitions`: runs per setting, as their harmonic mean.
    """

    runs: int
    cells: int
    complete: bool
    terms: Sequence[Term]
    levels: dict[str, Sequence[Level]]
    noise: float | None
    degrees: int
    noise_source: str
    repetitions: float

    @functools.cached_property
    def lsd(self) -> float | None:
        """The least significant difference (95 %) between the means of two settings that were chosen beforehand."""
        if self.noise is None:
            return None
        from scipy import stats

        error = self.noise * math.sqrt(2 / self.repetitions)
        return float(stats.t.ppf((1 + LEVEL) / 2, self.degrees)) * error

    @functools.cached_property
    def threshold(self) -> float | None:
        """How far a setting must be behind the best mean to be worse with 95 %: the truly best one is within it.

        Larger than `lsd`, because the best of many is partly the luckiest.
        """
        if self.noise is None or self.cells < 2:
            return None
        return selection_quantile(self.cells, self.degrees) * self.noise / math.sqrt(self.repetitions)


def effects_of(table: Table) -> Effects | None:
    """The effects of the axes but the seed, from the comparable rows; None if no axis varies among these."""
    import numpy as np

    rows = [row for row in table.rows if table.is_comparable(row)]
    axes = [axis for axis in table.axes if axis != SEED_AXIS and len({axis_key(row.get(axis)) for row in rows}) > 1]
    if not axes:
        return None
    values = np.array([row[table.select.column] for row in rows], dtype="float64")
    sorted_levels = {axis: _levels_of([row.get(axis) for row in rows]) for axis in axes}
    places = {
        axis: {axis_key(value): place for place, value in enumerate(found)} for axis, found in sorted_levels.items()
    }
    codes = np.array([[places[axis][axis_key(row.get(axis))] for axis in axes] for row in rows])
    return _Analysis(axes, sorted_levels, codes, values).effects()


def _levels_of(values: Sequence[Any]) -> list[Any]:
    """The different values: numbers in order, then the others by their text."""
    different = list({axis_key(value): value for value in values}.values())
    return sorted(different, key=lambda value: (0, value, "") if isinstance(value, int | float) else (1, 0, str(value)))


class _Analysis:
    """`codes`: the level of each run on each axis, int (runs, axes). `values`: the metric, float (runs,)."""

    def __init__(
        self, axes: Sequence[str], levels: dict[str, list[Any]], codes: NDArray[np.int64], values: NDArray[np.float64]
    ) -> None:
        import numpy as np

        self._axes, self._levels, self._codes, self._values = axes, levels, codes, values
        _, cell = np.unique(codes, axis=0, return_inverse=True)
        self._cell = cell.ravel()
        self._counts = np.bincount(self._cell)
        self._sizes = [len(levels[axis]) for axis in axes]
        self._complete = len(self._counts) == math.prod(self._sizes) and len(set(self._counts.tolist())) == 1
        means = np.bincount(self._cell, weights=values) / self._counts
        self._within = float(((values - means[self._cell]) ** 2).sum())
        self._total = float(((values - values.mean()) ** 2).sum())
        self._between = self._total - self._within

    def effects(self) -> Effects:
        """All of it."""
        runs, cells = len(self._values), len(self._counts)
        found = self._exact_squares() if self._complete else self._fitted_squares()
        squares, left, left_degrees = found
        if self._complete and len(self._axes) > 1:
            left = max(0.0, self._between - sum(square for square, _ in squares.values()))
            left_degrees = cells - 1 - sum(degrees for _, degrees in squares.values())
        noise, degrees, source = self._noise(squares, left, left_degrees)
        interaction = source == "the interaction"
        terms = [
            self._term(which, *pair, None if interaction and len(which) > 1 else noise, degrees)
            for which, pair in squares.items()
        ]
        return Effects(
            runs,
            cells,
            self._complete,
            terms,
            self._adjusted_means(noise, degrees),
            noise,
            degrees,
            source,
            float(cells / (1 / self._counts).sum()),
        )

    def _noise(self, squares: Squares, left: float, left_degrees: int) -> tuple[float | None, int, str]:
        runs, cells = len(self._values), len(self._counts)
        if runs > cells:
            return math.sqrt(self._within / (runs - cells)), runs - cells, "seeds"
        if left_degrees > 0:
            return math.sqrt(left / left_degrees), left_degrees, "higher interactions"
        pair = squares.get((0, 1))
        if len(self._axes) == 2 and pair and pair[1] > 0:
            return math.sqrt(pair[0] / pair[1]), pair[1], "the interaction"
        return None, 0, ""

    def _term(self, which: tuple[int, ...], square: float, own: int, noise: float | None, degrees: int) -> Term:
        from scipy import stats

        axes = tuple(self._axes[number] for number in which)
        if own == 0:
            return Term(axes, None, None, 0)
        p_value = None
        if noise is not None and noise > 0:
            p_value = float(stats.f.sf(square / own / noise**2, own, degrees))
        # Without any difference between the cells there is nothing to share.
        share = min(1.0, square / self._between) if self._between > _ROUNDING * self._total else 0.0
        return Term(axes, share, p_value, own)

    def _exact_squares(self) -> tuple[Squares, float, int]:
        """The sum of squares and degrees of freedom of each term, from the means of a complete grid."""
        import numpy as np

        centred = self._values - self._values.mean()
        means: dict[int, NDArray[np.float64]] = {}
        squares: Squares = {}
        for number, size in enumerate(self._sizes):
            code = self._codes[:, number]
            means[number] = np.bincount(code, weights=centred, minlength=size) * size / len(centred)
            squares[(number,)] = float((means[number] ** 2).sum()) * len(centred) / size, size - 1
        for first, second in itertools.combinations(range(len(self._sizes)), 2):
            sizes = self._sizes[first], self._sizes[second]
            code = self._codes[:, first] * sizes[1] + self._codes[:, second]
            sums = np.bincount(code, weights=centred, minlength=math.prod(sizes)).reshape(sizes)
            together = sums * (math.prod(sizes) / len(centred))
            rest = together - means[first][:, None] - means[second][None, :]
            degrees = (sizes[0] - 1) * (sizes[1] - 1)
            squares[(first, second)] = float((rest**2).sum()) * len(centred) / math.prod(sizes), degrees
        return squares, 0.0, 0

    def _fitted_squares(self) -> tuple[Squares, float, int]:
        """The same by least squares, and the sum and degrees of freedom that the full model leaves."""
        numbers = range(len(self._axes))
        mains: Columns = {(number,): self._columns((number,)) for number in numbers}
        pairs: Columns = {which: self._columns(which) for which in itertools.combinations(numbers, 2)}
        if sum(columns.shape[1] for columns in (*mains.values(), *pairs.values())) > _MOST_COLUMNS:
            pairs = {}
        squares = self._added(mains, {})
        left, rank = self._fit([*mains.values(), *pairs.values()])
        if pairs and rank < len(self._counts):
            squares |= self._added(pairs, mains)
        elif pairs:
            # Main effects and pairs explain each cell: only the main effects can be tested.
            left, rank = self._fit(list(mains.values()))
            squares |= dict.fromkeys(pairs, (0.0, 0))
        return squares, max(0.0, left - self._within), len(self._counts) - rank

    def _added(self, terms: Columns, others: Columns) -> Squares:
        """What each term adds to a model with `others` and all other terms."""
        full, rank = self._fit([*others.values(), *terms.values()])
        added = {}
        for which in terms:
            rest = [columns for name, columns in terms.items() if name != which]
            without, lower = self._fit([*others.values(), *rest])
            added[which] = max(0.0, without - full), rank - lower
        return added

    def _columns(self, which: tuple[int, ...]) -> NDArray[np.float64]:
        """The columns of a term in a design matrix, float (runs, columns): each level against the last one."""
        import numpy as np

        columns = np.ones((len(self._values), 1))
        for number in which:
            contrast = np.vstack([np.eye(self._sizes[number] - 1), -np.ones(self._sizes[number] - 1)])
            own = contrast[self._codes[:, number]]
            columns = (columns[:, :, None] * own[:, None, :]).reshape(len(own), -1)
        return columns

    def _fit(self, columns: Sequence[NDArray[np.float64]]) -> tuple[float, int]:
        """The residual sum of squares and the rank of a model with these columns and a constant."""
        import numpy as np

        design = np.hstack([np.ones((len(self._values), 1)), *columns])
        found, _, rank, _ = np.linalg.lstsq(design, self._values, rcond=None)
        return float(((self._values - design @ found) ** 2).sum()), int(rank)

    def _adjusted_means(self, noise: float | None, degrees: int) -> dict[str, Sequence[Level]]:
        """The mean of each level in a model of the main effects, averaged over the levels of the other axes."""
        import numpy as np
        from scipy import stats

        blocks = [self._columns((number,)) for number in range(len(self._axes))]
        design = np.hstack([np.ones((len(self._values), 1)), *blocks])
        inverse = np.linalg.pinv(design.T @ design)
        found = inverse @ design.T @ self._values
        quantile = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) if noise is not None else 0.0
        levels: dict[str, Sequence[Level]] = {}
        start = 1
        for number, axis in enumerate(self._axes):
            size = self._sizes[number]
            contrast = np.zeros((size, design.shape[1]))
            contrast[:, 0] = 1
            contrast[:, start : start + size - 1] = np.vstack([np.eye(size - 1), -np.ones(size - 1)])
            means = contrast @ found
            errors = np.sqrt(np.einsum("ij,jk,ik->i", contrast, inverse, contrast))
            counts = np.bincount(self._codes[:, number], minlength=size)
            own = []
            for place, value in enumerate(self._levels[axis]):
                mean, half = float(means[place]), quantile * (noise or 0.0) * float(errors[place])
                interval = None if noise is None else (mean - half, mean + half)
                own.append(Level(value, int(counts[place]), mean, interval))
            levels[axis] = own
            start += size - 1
        return levels
