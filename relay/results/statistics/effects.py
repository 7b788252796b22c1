"""What each hyperparameter of a sweep did: tests of main effects and pairs of axes, and comparisons of their values.

Each term is a contrast of the settings' values (design.py), with their noise (noise.py). With
results per image, new images and new seeds are part of it; without, it holds on these images. The p values of the main
effects are corrected for the number of axes, those of the pairs for the number of pairs (Holm). Two values of an axis
differ if they do in a simultaneous comparison of all values (Tukey and Kramer, Biometrics 12:307, by simulation).

Shares are of the sum of squares between the settings' values. On a complete grid they are exact and add up; on an
incomplete one they come from least squares and may not add up.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from relay.results.statistics.design import Design, Trend, Which, span
from relay.results.statistics.failures import LevelFailures
from relay.results.statistics.intervals import LEVEL, Interval, around, holm
from relay.results.statistics.noise import Noise
from relay.results.tables.ranking import Ranking
from relay.terminal import show_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIGNIFICANT = 0.05
# More digits than a metric has: below this share of the total, a sum of squares is rounding.
_ROUNDING = 1e-12
# Beyond these, all pairs of values take too long to compare, and the covariance of all values is too large.
_MOST_COMPARED, _MOST_LEVELS = 60, 300


@dataclass(frozen=True)
class Term:
    """A main effect (one axis) or an interaction (two): its `share` of the variance between settings, the `p_value` of
    its test, and `adjusted`, that p value corrected for the number of terms of its kind.

    All are None if the term cannot be told apart from others, the p values also if the noise is not known.
    """

    axes: tuple[str, ...]
    share: float | None
    p_value: float | None
    degrees: int
    adjusted: float | None = None

    @property
    def name(self) -> str:
        """`lr`, or `lr x weight_decay`."""
        return " x ".join(self.axes)

    @property
    def is_clear(self) -> bool:
        """Whether the effect is more than noise."""
        return self.adjusted is not None and self.adjusted < SIGNIFICANT


@dataclass(frozen=True)
class Level:
    """A value of an axis: the mean of the metric, adjusted for the other axes, and its 95 % interval, if known.

    `worse_than`: numbers of the levels that are better with 95 %; None where the levels were not compared.
    """

    value: Any
    n: int
    mean: float
    interval: Interval | None
    worse_than: frozenset[int] | None = None

    @property
    def shown(self) -> str:
        """The value in a sentence or a figure."""
        return shown_level(self.value)


def shown_level(value: Any) -> str:
    """A value of an axis in a sentence or a figure, where an empty text would say nothing."""
    return "null" if value is None else show_value(value)


@dataclass(frozen=True)
class Slope:
    """How the metric changes along an axis of numbers: by `change` (95 %: `interval`) per factor of ten, or per unit.

    `peak`: the value at which the fitted curve is best, if that lies inside and the curvature is clear.
    """

    trend: Trend
    change: float
    interval: Interval | None
    peak: float | None


@dataclass(frozen=True)
class Effects:
    """The effects in `runs` runs of `cells` settings, of `planned` in all. `levels`: by axis, in the order of values.

    `noise`: the standard deviation of a run on these images around what the terms explain, with its `degrees` of
    freedom; None if nothing is left to estimate it from. `new_images`: whether the images are part of the noise.
    `repetitions`: runs per setting, as their harmonic mean. `slopes`: of the axes of numbers that nearly all
    differ. `failures`: by axis.
    """

    runs: int
    cells: int
    planned: int
    complete: bool
    terms: Sequence[Term]
    levels: Mapping[str, Sequence[Level]]
    noise: float | None
    degrees: float
    new_images: bool
    repetitions: float
    slopes: Mapping[str, Slope] = field(default_factory=dict)
    failures: Mapping[str, Sequence[LevelFailures]] = field(default_factory=dict)

    @functools.cached_property
    def lsd(self) -> float | None:
        """The least significant difference (95 %) between the means of two settings that were chosen beforehand, on
        these images.
        """
        if self.noise is None:
            return None
        from scipy import stats

        error = self.noise * math.sqrt(2 / self.repetitions)
        return float(stats.t.ppf((1 + LEVEL) / 2, self.degrees)) * error

    def main(self, axis: str) -> Term | None:
        """The main effect of an axis; None if only one of its values is compared."""
        return next((term for term in self.terms if term.axes == (axis,)), None)


def effects_of(
    design: Design,
    noise: Noise,
    select: Ranking,
    *,
    planned: int = 0,
    failures: Mapping[str, Sequence[LevelFailures]] | None = None,
) -> Effects | None:
    """The effects of the axes of a design; None if no axis varies and none has failures. Values are in the unit of the
    metric.
    """
    if not design.axes and not failures:
        return None
    spread = noise.spread
    known = spread.degrees > 0
    analysis = _Analysis(design, noise, select)
    mains = _corrected([analysis.term(which) for which in design.mains])
    pairs = _corrected([analysis.term(which) for which in design.pairs])
    levels, slopes = {}, {}
    for (number,), main in zip(design.mains, mains, strict=True):
        axis = design.axes[number]
        levels[axis] = analysis.levels(number, compare=main.is_clear)
        if axis in design.trends and main.share is not None:
            slopes[axis] = analysis.slope(number, tested=main.p_value is not None)
    return Effects(
        runs=int(noise.seeds.sum()),
        cells=design.count,
        planned=max(planned, design.count),
        complete=design.is_complete,
        terms=[*mains, *pairs],
        levels=levels,
        noise=math.sqrt(spread.variance) if known else None,
        degrees=spread.degrees,
        new_images=noise.has_images,
        repetitions=float(len(noise.seeds) / (1 / noise.seeds).sum()),
        slopes=slopes,
        failures=failures or {},
    )


def _corrected(terms: Sequence[Term]) -> list[Term]:
    adjusted = holm([term.p_value for term in terms])
    return [replace(term, adjusted=value) for term, value in zip(terms, adjusted, strict=True)]


class _Analysis:
    def __init__(self, design: Design, noise: Noise, select: Ranking) -> None:
        self._design, self._noise, self._select = design, noise, select
        values = noise.values
        self._between = float(((values - values.mean()) ** 2).sum())
        # The levels of what is equal up to rounding have no shares.
        self._is_flat = self._between <= _ROUNDING * float((values**2).sum())

    def term(self, which: Which) -> Term:
        """The share of a term and its test."""
        design, noise = self._design, self._noise
        axes = tuple(design.axes[number] for number in which)
        tested = which in design.tested
        if not tested and not design.is_complete:
            return Term(axes, None, None, 0)
        contrasts = design.contrasts(which)
        rows = span(contrasts).T
        # Of a pair, what the empty combinations leave can be tested; values of an axis that are mixed with other terms
        # cannot be compared.
        if not len(rows) or (len(which) == 1 and len(rows) < contrasts.shape[1]):
            return Term(axes, None, None, 0)
        found = rows @ noise.values
        share = 0.0 if self._is_flat else min(1.0, float((found**2).sum()) / self._between)
        return Term(axes, share, self._p_value(rows, found) if tested else None, len(rows))

    def _p_value(self, rows: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
        import numpy as np
        from scipy import stats

        noise, spread = self._noise, self._noise.spread
        if not spread.degrees or spread.variance == 0:
            return None
        if not noise.has_images:
            scale = (rows / noise.seeds) @ rows.T
            ratio = float(found @ np.linalg.solve(scale, found)) / len(rows) / spread.variance
            return float(stats.f.sf(ratio, len(rows), spread.degrees))
        covariance, drawn = noise.sample(rows)
        inverse = np.linalg.pinv(covariance, hermitian=True)
        return float(((drawn @ inverse) * drawn).sum(axis=1).__ge__(found @ inverse @ found).mean())

    def levels(self, number: int, *, compare: bool) -> list[Level]:
        """The adjusted mean of each level of an axis; `compare`: and which are worse than which."""
        import numpy as np

        design, noise, select = self._design, self._noise, self._select
        axis = design.axes[number]
        rows = design.mean_row() + design.coding(number) @ np.linalg.pinv(design.contrasts((number,)), rcond=1e-9)
        means, halves = rows @ noise.values, self._half_widths(rows)
        counts = np.bincount(design.codes[:, number], weights=noise.seeds)
        worse = self._worse(rows) if compare and axis not in design.trends else None
        found = []
        for place, value in enumerate(design.levels[axis]):
            mean, half = select.score(float(means[place])), halves[place]
            interval = None if half is None else around(mean, half, is_share=select.is_share)
            mean = min(1.0, max(0.0, mean)) if select.is_share else mean
            found.append(Level(value, round(counts[place]), mean, interval, worse[place] if worse else None))
        return found

    def _half_widths(self, rows: NDArray[np.float64]) -> list[float | None]:
        import numpy as np
        from scipy import stats

        noise, spread = self._noise, self._noise.spread
        if not spread.degrees or len(rows) > _MOST_LEVELS:
            return [None] * len(rows)
        if not noise.has_images:
            errors = np.sqrt(spread.variance * (rows**2 / noise.seeds).sum(axis=1))
            return [float(half) for half in stats.t.ppf((1 + LEVEL) / 2, spread.degrees) * errors]
        return [float(half) for half in np.quantile(np.abs(noise.sample(rows)[1]), LEVEL, axis=0)]

    def _worse(self, rows: NDArray[np.float64]) -> list[frozenset[int]] | None:
        """For each level, those that are better, of all differences at once."""
        import numpy as np

        count = len(rows)
        if count > _MOST_COMPARED:
            return None
        first, second = np.triu_indices(count, 1)
        covariance, drawn = self._noise.sample(rows)
        variance = np.diag(covariance)
        errors = np.sqrt(np.maximum(variance[first] + variance[second] - 2 * covariance[first, second], 1e-18))
        largest = np.max(
            [np.abs(drawn[:, a] - drawn[:, b]) / e for a, b, e in zip(first, second, errors, strict=True)], 0
        )
        means = rows @ self._noise.values
        distances = (means[first] - means[second]) / errors / np.quantile(largest, LEVEL)
        better: list[set[int]] = [set() for _ in range(count)]
        for one, other, distance in zip(first.tolist(), second.tolist(), distances, strict=True):
            if distance > 1:
                better[other].add(one)
            elif distance < -1:
                better[one].add(other)
        return [frozenset(own) for own in better]

    def slope(self, number: int, *, tested: bool) -> Slope:
        """How the metric changes along an axis of numbers."""
        import numpy as np

        design, noise, select = self._design, self._noise, self._select
        trend = design.trends[design.axes[number]]
        rows = np.linalg.pinv(design.contrasts((number,)), rcond=1e-9).astype("float64")
        found, halves = rows @ noise.values, self._half_widths(rows) if tested else [None] * len(rows)
        # At the middle of the scale, where the curve's slope is that of its linear part.
        change, half = select.score(float(found[0])) / trend.width, halves[0]
        interval = None if half is None else (change - half / trend.width, change + half / trend.width)
        peak = None
        if len(found) > 1 and halves[1] is not None and found[1] < -halves[1]:
            place = -float(found[0]) / (2 * float(found[1]))
            peak = trend.value(place) if -1 < place < 1 else None
        return Slope(trend, change, interval, peak)
