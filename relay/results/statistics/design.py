"""The linear model of a grid: main effects and pairs of axes, as columns of a design matrix with one row per setting.

An axis is a factor, with a mean for each of its values. An axis of numbers that nearly all differ, as in a random
search, is a trend: a slope, and a curvature where that leaves four degrees of freedom, on a logarithmic scale if the
values span a factor of ten.

A term is tested after everything in the model that does not contain it (type II, also for main effects: Langsrud 2003,
Statistics and Computing 13:163).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.runs.cells import axis_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The numbers of the axes of a term.
Which = tuple[int, ...]
# A variance from fewer degrees of freedom than these is no base for a test.
LEAST_DEGREES = 4
# With more columns than these, the pairs are left out: each term of an incomplete grid is fitted by itself.
_MOST_COLUMNS, _MOST_OF_INCOMPLETE = 1000, 400
# A trend has at least as many values, and more than half as many as there are settings.
_LEAST_OF_TREND = 5
_LOGARITHMIC = 10.0
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Trend:
    """The scale of an axis of numbers: logarithmic or not; `centre` and `width` map its values to about -1 to 1."""

    logarithmic: bool
    centre: float
    width: float

    def place(self, value: float) -> float:
        """Where a value is on the scale."""
        return ((math.log10(value) if self.logarithmic else value) - self.centre) / self.width

    def value(self, place: float) -> float:
        """The value at a place."""
        found = place * self.width + self.centre
        return float(10**found) if self.logarithmic else found


class Design:
    """The model of settings. `points`: the value of each axis, by setting. `repeated`: whether some have several seeds.

    `levels`: the different values of each axis that has several, in order. `basis`: orthonormal columns, (K, P), that
    span the model. `tested`: the terms in it. `is_complete`: whether every combination of the levels is there once.
    """

    def __init__(self, points: Sequence[Mapping[str, Any]], axes: Sequence[str], *, repeated: bool) -> None:
        import numpy as np

        found = {axis: levels_of([point.get(axis) for point in points]) for axis in axes}
        self.levels = {axis: levels for axis, levels in found.items() if len(levels) > 1}
        self.axes, self.count = list(self.levels), len(points)
        places = {axis: {axis_key(value): n for n, value in enumerate(own)} for axis, own in self.levels.items()}
        self.codes: NDArray[np.int64] = np.array(
            [[places[axis][axis_key(point.get(axis))] for axis in self.axes] for point in points], dtype="int64"
        ).reshape(len(points), len(self.axes))
        self._sizes = [len(self.levels[axis]) for axis in self.axes]
        self.trends = {} if repeated else self._found_trends()
        self.is_complete = not self.trends and self.count == math.prod(self._sizes)
        self._curved = self.count - 1 - self._width(curved=True) >= LEAST_DEGREES
        self.mains: list[Which] = [(number,) for number in range(len(self.axes))]
        factors = [number for number, axis in enumerate(self.axes) if axis not in self.trends]
        self.pairs: list[Which] = list(itertools.combinations(factors, 2))
        self.tested, self.basis = self._model(repeated=repeated)

    @property
    def degrees(self) -> int:
        """Degrees of freedom that the model leaves."""
        return self.count - int(self.basis.shape[1])

    def contrasts(self, which: Which) -> NDArray[np.float64]:
        """The columns of a term after projection on the terms of the model that do not contain it, (K, C)."""
        own = self.columns(which)
        if self.is_complete:
            # Orthogonal to all other terms already.
            return own
        others = [each for each in self.tested if not set(which) <= set(each)]
        fitted = _basis([self._constant(), *(self.columns(each) for each in others)])
        return own - fitted @ (fitted.T @ own)

    def columns(self, which: Which) -> NDArray[np.float64]:
        """The columns of a term, (K, C)."""
        columns = self._constant()
        for number in which:
            own = self.coding(number)[self.codes[:, number]]
            columns = (columns[:, :, None] * own[:, None, :]).reshape(self.count, -1)
        return columns

    def coding(self, number: int) -> NDArray[np.float64]:
        """The row of each level of an axis in the columns of its main effect, (levels, C). Rows of factors sum to 0."""
        import numpy as np

        axis, size = self.axes[number], self._sizes[number]
        if axis not in self.trends:
            return np.vstack([np.eye(size - 1), -np.ones(size - 1)])
        places = np.array([self.trends[axis].place(value) for value in self.levels[axis]])
        counts = np.bincount(self.codes[:, number], minlength=size)
        powers = [places**power for power in ((1, 2) if self._curved else (1,))]
        return np.stack([own - float(own @ counts) / self.count for own in powers], axis=1)

    def mean_row(self) -> NDArray[np.float64]:
        """The contrast of the grand mean: in an incomplete grid, as if each level occurred equally often, (K,)."""
        import numpy as np

        if self.is_complete:
            return np.full(self.count, 1 / self.count)
        design = np.hstack([self._constant(), *(self.columns(which) for which in self.mains)])
        row: NDArray[np.float64] = np.linalg.pinv(design, rcond=_ROUNDING)[0]
        return row

    def _constant(self) -> NDArray[np.float64]:
        import numpy as np

        return np.ones((self.count, 1))

    def _found_trends(self) -> dict[str, Trend]:
        trends = {}
        for axis, levels in self.levels.items():
            numbers = [value for value in levels if isinstance(value, int | float) and not isinstance(value, bool)]
            if len(numbers) == len(levels) and len(levels) >= _LEAST_OF_TREND and 2 * len(levels) > self.count:
                trends[axis] = _trend(numbers)
        return trends

    def _width(self, *, curved: bool) -> int:
        """The number of columns of the main effects."""
        return sum((1 + curved) if axis in self.trends else len(levels) - 1 for axis, levels in self.levels.items())

    def _model(self, *, repeated: bool) -> tuple[list[Which], NDArray[np.float64]]:
        """Main effects and pairs, if they leave enough to estimate the noise from; else the main effects."""
        everything = [*self.mains, *self.pairs]
        columns = sum(math.prod(self.coding(number).shape[1] for number in which) for which in everything)
        if self.pairs and columns <= (_MOST_COLUMNS if self.is_complete else _MOST_OF_INCOMPLETE):
            basis = self._basis_of(everything)
            if repeated or self.count - basis.shape[1] >= LEAST_DEGREES:
                return everything, basis
        return self.mains, self._basis_of(self.mains)

    def _basis_of(self, terms: Sequence[Which]) -> NDArray[np.float64]:
        import numpy as np

        blocks = [self._constant(), *map(self.columns, terms)]
        # The terms of a complete grid are orthogonal: far faster than all columns at once.
        return np.hstack([span(block) for block in blocks]) if self.is_complete else _basis(blocks)


def levels_of(values: Sequence[Any]) -> list[Any]:
    """The different values: numbers in order, then the others by their text."""
    different = list({axis_key(value): value for value in values}.values())
    return sorted(different, key=lambda value: (0, value, "") if isinstance(value, int | float) else (1, 0, str(value)))


def span(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal columns that span `columns` (K, C), up to rounding, (K, rank)."""
    import numpy as np

    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.ascontiguousarray(left[:, sizes > _ROUNDING * max(1.0, math.sqrt(len(columns)))])


def _basis(blocks: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    import numpy as np
    from scipy import linalg

    stacked = np.hstack(blocks)
    q, r, _ = linalg.qr(stacked, mode="economic", pivoting=True)
    sizes = np.abs(np.diag(r))
    return np.ascontiguousarray(q[:, : int((sizes > _ROUNDING * sizes[0]).sum())])


def _trend(numbers: Sequence[float]) -> Trend:
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high / low >= _LOGARITHMIC
    if logarithmic:
        low, high = math.log10(low), math.log10(high)
    return Trend(logarithmic, (low + high) / 2, (high - low) / 2)
