"""Intervals and tests for shares, means and differences. An interval is (low, high), with 95 % confidence by default.

wilson(hits, n)                    a share, such as an accuracy
around(value, half, ...)           a share or another value whose 95 % half-width is known
exact_around(share, half, n)       the same of a share, of which few may be wrong
holm(p_values)                     p values of several tests, corrected for their number
t_interval(values)                 the mean of a few values, such as the accuracies of several seeds
bootstrap_error(statistic, n)      the standard error of any statistic of n images
difference_of_shares(...)          two shares of different images, such as test against val
adjusted_wald(first, second)       two networks that are right or wrong, on the same images
agresti_caffo(first, second)       the same on different images
student(values)                    a mean, such as that of the differences of two networks, image by image
welch(first, second)               two means of different images
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 1000
# The variance of a mean of crossed predictions (relay/runs/predictions.py), against one network on these images.
# Each half chooses the epoch of the other one, so luck in both halves can meet in one epoch: E equally good epochs with
# independent noise give the halves a correlation of m² / (E - 1), where m is the expected maximum of E standard normal
# values. It is 0.36 for three epochs, the most, and 0.26 for ten. Without it, 4 equal variants of ten epochs each
# differ from the base in 10 % in place of 5; epochs that share noise need less.
CROSSED_VARIANCE = 1.36

Interval = tuple[float, float]


def wilson(hits: float, n: float, level: float = LEVEL) -> Interval:
    """The score interval for the share `hits` / `n` (Wilson 1927); it never leaves [0, 1].

    Without images, (0, 1): nothing is known. Raises ValueError unless 0 <= hits <= n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is not a share")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = hits / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    # Exact at the ends, where rounding would give values like -1e-18.
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == n else centre + half)


def around(value: float, half: float, *, is_share: bool, n: float = math.inf, level: float = LEVEL) -> Interval:
    """The interval of `value` whose half-width with `level` is `half`.

    A share gets Wilson's interval with the number of images that would give this half-width, at most `n` (the effective
    sample size, Korn and Graubard 1998, Survey Methodology 24:193), so that it stays in [0, 1] and has a width at 0
    and 1.
    """
    if not is_share:
        return value - half, value + half
    z = NormalDist().inv_cdf((1 + level) / 2)
    # Rounded, because almost 1 would get another interval than 1.
    share, variance = min(1.0, max(0.0, round(value, 12))), (half / z) ** 2
    spread = share * (1 - share)
    effective = min(n, spread / variance) if variance > 0 and spread > 0 else n
    if effective == math.inf:
        return max(0.0, share - half), min(1.0, share + half)
    parts = z * z / effective if effective > 0 else math.inf
    if parts == math.inf:
        return 0.0, 1.0
    centre, reach = share + parts / 2, math.sqrt(spread * parts + parts * parts / 4)
    low, high = (centre - reach) / (1 + parts), (centre + reach) / (1 + parts)
    # Rounding must not put the share outside of a narrow interval.
    return (0.0 if share == 0 else max(0.0, min(low, share))), (1.0 if share == 1 else min(1.0, max(high, share)))


def exact_around(share: float, half: float, n: float, level: float = LEVEL) -> Interval:
    """The exact interval (Clopper and Pearson 1934, Biometrika 26:404) of a share whose half-width with `level` is
    `half`, with its effective sample size, at most `n`. Wilson's covers less than it says where few are wrong.
    """
    from scipy import stats

    variance, spread = (half / NormalDist().inv_cdf((1 + level) / 2)) ** 2, share * (1 - share)
    size = min(n, spread / variance) if variance > 0 and spread > 0 else n
    hits, tail = share * size, (1 - level) / 2
    low = float(stats.beta.ppf(tail, hits, size - hits + 1)) if hits > 0 else 0.0
    return low, float(stats.beta.ppf(1 - tail, hits + 1, size - hits)) if hits < size else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The adjusted p values of tests of which all that are below a level are right together (Holm 1979, Scandinavian
    Journal of Statistics 6:65). None stays None, and is no test.
    """
    tested = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, place) in enumerate(tested):
        largest = max(largest, min(1.0, value * (len(tested) - rank)))
        adjusted[place] = largest
    return adjusted


def p_text(p_value: float) -> str:
    """`p = 0.041`, or `p < 0.001`."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


@dataclass(frozen=True)
class Estimate:
    """The middle of the intervals of a value, their standard error, and its degrees of freedom (infinite: normal)."""

    centre: float
    error: float
    degrees: float = math.inf

    @classmethod
    def from_half_width(cls, centre: float, half: float, level: float = LEVEL) -> Estimate:
        """The estimate whose interval with `level` reaches `half` from the centre."""
        return cls(centre, half / NormalDist().inv_cdf((1 + level) / 2))

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval that holds the value with the probability `level`."""
        half = _quantile((1 + level) / 2, self.degrees) * self.error
        return self.centre - half, self.centre + half

    @property
    def p_value(self) -> float:
        """Of the two-sided test that the value is 0: below 1 - level exactly where the interval excludes 0."""
        if not self.error:
            return float(self.centre == 0)
        distance = abs(self.centre) / self.error
        if self.degrees == math.inf:
            return math.erfc(distance / math.sqrt(2))
        from scipy import stats

        return float(2 * stats.t.sf(distance, self.degrees))


def _quantile(probability: float, degrees: float) -> float:
    if degrees == math.inf:
        return NormalDist().inv_cdf(probability)
    from scipy import stats

    return float(stats.t.ppf(probability, degrees))


def student(values: Sequence[float] | NDArray[np.float64]) -> Estimate | None:
    """The mean of independent `values` (Student 1908). None for fewer than two: their spread is unknown."""
    import numpy as np

    if len(values) < 2:
        return None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(float(np.mean(values)), error, len(values) - 1)


def t_interval(values: Sequence[float] | NDArray[np.float64], level: float = LEVEL) -> Interval | None:
    """The interval of `student`."""
    found = student(values)
    return found.interval(level) if found else None


def bootstrap_error(
    statistic: Callable[[NDArray[np.int64]], float], n: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """The bootstrap standard error of a statistic of `n` images (Efron 1979).

    `statistic` is given indices of images, int64 (n,), and returns its value. The same seed draws the same resamples.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    # Not the percentiles of the resamples: a resample loses a third of the images, which pulls the macro F1 of few
    # images per class down. Simulated for 200 classes of 10 images each, percentiles cover the truth in 66 % of the
    # cases, the value +- 1.96 of these errors in 92 %; for 20 classes of 50 images, 97 % and 98 %.
    return float(np.std([statistic(random.integers(0, n, n)) for _ in range(resamples)], ddof=1))


def difference_of_shares(hits_a: float, n_a: float, hits_b: float, n_b: float, level: float = LEVEL) -> Interval:
    """The interval for hits_a / n_a - hits_b / n_b of two independent samples, which may differ in size.

    Method 10 of Newcombe 1998 (Statistics in Medicine 17:873), from the Wilson intervals of both shares.
    """
    (low_a, high_a), (low_b, high_b) = wilson(hits_a, n_a, level), wilson(hits_b, n_b, level)
    a, b = hits_a / n_a, hits_b / n_b
    return a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)


def welch(first: NDArray[np.float64], second: NDArray[np.float64]) -> Estimate | None:
    """The mean of `first` minus that of `second`, two independent samples whose variances may differ (Welch 1947,
    Biometrika 34:28). None for fewer than two values in one of them.
    """
    a, b = student(first), student(second)
    if a is None or b is None:
        return None
    error = math.hypot(a.error, b.error)
    degrees = error**4 / (a.error**4 / a.degrees + b.error**4 / b.degrees) if error else math.inf
    return Estimate(a.centre - b.centre, error, degrees)


def adjusted_wald(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Estimate:
    """The share of `first` minus that of `second`, which say for each image whether a network is correct, bool (N,) in
    equal order (Agresti and Min 2005, Statistics in Medicine 24:729).

    Raises ValueError if the arrays are empty or differ in length.
    """
    import numpy as np

    if first.shape != second.shape or not first.size:
        raise ValueError(f"results of {first.shape} and {second.shape} images cannot be paired")
    # Half an image is added to each of the four counts, so that the interval has a width where the networks agree.
    only_first, only_second = int(np.sum(first & ~second)) + 0.5, int(np.sum(~first & second)) + 0.5
    n, difference = first.size + 2, only_first - only_second
    return Estimate(difference / n, math.sqrt(only_first + only_second - difference**2 / n) / n)


def agresti_caffo(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Estimate:
    """The share of `first` minus that of `second`, bool (N,) and (M,) of different images, with one hit and one miss
    added to each of them (Agresti and Caffo 2000, The American Statistician 54:280).
    """
    (a, n), (b, m) = (((int(each.sum()) + 1) / (each.size + 2), each.size + 2) for each in (first, second))
    return Estimate(a - b, math.sqrt(a * (1 - a) / n + b * (1 - b) / m))
