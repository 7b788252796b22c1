"""Which settings of a sweep may be the best one, and what to expect of the one that leads.

- A step-down test of all pairs at once: a setting leaves the set if it is clearly behind another one; the quantile of
  the largest of all studentised differences decides what is clear. With 95 %, every setting that is as good as the best
  one stays in the set, so that all others are worse (Hsu, Multiple Comparisons, 1996; Romano and Wolf 2005,
  Econometrica 73:1237; Hansen, Lunde and Nason 2011, Econometrica 79:453).
- The leader's value as measured is too good, because it was selected for it. In each resample, the leader is selected
  on the drawn images and measured on those that were not drawn (Efron and Tibshirani 1997, JASA 92:548); a draw of the
  noise between seeds is added to the first and subtracted from the second, which makes both independent (Oliveira, Lei
  and Tibshirani 2021, arXiv:2111.09447).

Both use relay/results/statistics/noise.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from relay.results.statistics.intervals import LEVEL, Interval, around
from relay.results.statistics.noise import Noise
from relay.results.tables.ranking import Ranking

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The pairs are tested with draws up to this many settings. Beyond, a test against the leader alone comes first.
_MOST_TESTED = 300
_WINNER_RESAMPLES = 300
# Memory: resamples of all images at a time.
_BATCH = 50


@dataclass(frozen=True)
class Contenders:
    """The settings that may be the best one, as the numbers `members`, in order.

    `threshold`: how far apart two settings must typically be, to be told apart. `decided`: False if that is more than
    the range of all values, so that nothing can be said about any of them.
    """

    members: Sequence[int]
    threshold: float
    decided: bool


@dataclass(frozen=True)
class Winner:
    """What to expect of the leading setting on new images, with a new seed, and its 95 % interval."""

    expected: float
    interval: Interval


def contenders_of(noise: Noise) -> Contenders | None:
    """The settings that may be the best; None if there is no estimate of any noise, or only one setting."""
    import numpy as np

    if len(noise.values) < 2 or not (noise.has_images or noise.spread.degrees):
        return None
    # The noise may be larger among the better settings, of which the best one is.
    noise = noise.of_better_half()
    kept, threshold = _screened(noise)
    if len(kept) > _MOST_TESTED:
        return Contenders(kept, threshold, decided=True)
    screened = len(kept) < len(noise.values)
    noise = noise.restricted(kept)
    contrasts = np.eye(len(kept))
    variance, drawn = noise.sample(contrasts)
    errors = _errors(variance)
    members = np.arange(len(kept))
    while len(members) > 1:
        quantile = _quantile(drawn[:, members], errors[np.ix_(members, members)])
        if len(members) == len(kept) and not screened:
            threshold = quantile * float(np.median(errors[np.triu_indices(len(kept), 1)]))
        behind = (noise.values[members].max() - noise.values[members]) > 0
        distances = noise.values[members][:, None] - noise.values[members][None, :]
        worse = behind & ((distances / errors[np.ix_(members, members)]).max(axis=0) > quantile)
        if not worse.any():
            break
        members = members[~worse]
    found = [kept[number] for number in members]
    nothing = len(found) == len(kept) and not screened
    decided = not (nothing and threshold > float(np.ptp(noise.values)))
    return Contenders(found, threshold, decided)


def _screened(noise: Noise) -> tuple[list[int], float]:
    """The settings without those that a test against the leader excludes, at a level divided by the number of pairs;
    and the distance at which it does so. All of them, if there are few.
    """
    import numpy as np

    count = len(noise.values)
    if count <= _MOST_TESTED:
        return list(range(count)), math.nan
    level = 1 - (1 - LEVEL) / (count * (count - 1))
    limit = NormalDist().inv_cdf(level)
    if noise.spread.degrees:
        from scipy import stats

        limit = float(stats.t.ppf(level, noise.spread.degrees))
    leader = int(noise.values.argmax())
    variance = noise.spread.of_seeds * (1 / noise.seeds + 1 / noise.seeds[leader])
    images = noise.images()
    variance += 0.5 / images**2 + 0.5 / images[leader] ** 2
    (own,) = (group for group in noise.groups if leader in group.members) if noise.groups else (None,)
    for group in noise.groups:
        scale = len(group.means)
        if group is own:
            best = group.means[:, [group.members.index(leader)]]
            variance[group.members] += noise.crossing * (best - group.means).var(axis=0, dtype="float64") / scale
        elif own is not None:
            best = own.means[:, own.members.index(leader)]
            variance[group.members] += noise.crossing * group.means.var(axis=0, dtype="float64") / scale
            variance[group.members] += noise.crossing * float(best.var(dtype="float64")) / len(best)
    reach = limit * np.sqrt(variance)
    kept = np.flatnonzero(noise.values[leader] - noise.values <= reach)
    return [int(number) for number in kept], float(np.median(reach))


def _errors(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard error of each difference of two settings, (K, K); not less than rounding."""
    import numpy as np

    variance = np.diag(covariance)
    return np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 1e-18))


def _quantile(drawn: NDArray[np.float64], errors: NDArray[np.float64]) -> float:
    """The quantile of the largest studentised difference of any two settings, of their draws (draws, K)."""
    import numpy as np

    rows, scale = np.ascontiguousarray(drawn.T, dtype="float32"), (1 / errors).astype("float32")
    largest = np.zeros(len(drawn), dtype="float32")
    # One setting with all later ones at a time: far faster than gathering the columns of all pairs.
    for number in range(len(rows) - 1):
        distances = np.abs(rows[number + 1 :] - rows[number])
        distances *= scale[number + 1 :, number, None]
        np.maximum(largest, distances.max(axis=0), out=largest)
    return float(np.quantile(largest, LEVEL))


def winner_of(noise: Noise, members: Sequence[int], leader: int, select: Ranking) -> Winner | None:
    """What to expect of the leading one of the contenders; None without results per image. `leader`: its number."""
    import numpy as np

    if not noise.has_images or len(members) > _MOST_TESTED:
        return None
    own = noise.restricted(members)
    at = list(members).index(leader)
    of_seeds = own.spread.of_seeds / own.seeds
    random, measures = np.random.default_rng(0), []
    for _ in range(0, _WINNER_RESAMPLES, _BATCH):
        inside, outside = np.empty((2, _BATCH, len(members)))
        for group in own.groups:
            n = len(group.means)
            drawn = random.integers(0, n, (_BATCH, n)) + n * np.arange(_BATCH)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=n * _BATCH).reshape(_BATCH, n).astype("float32")
            left_out = (counts == 0).astype("float32")
            inside[:, group.members] = (counts @ group.means) / n
            outside[:, group.members] = (left_out @ group.means) / np.maximum(left_out.sum(axis=1, keepdims=True), 1)
        luck = random.standard_normal(inside.shape) * np.sqrt(of_seeds)
        selected = (inside + luck).argmax(axis=1)[:, None]
        measures.append(np.take_along_axis(outside - luck, selected, axis=1))
    expected = select.score(min(float(np.mean(measures)), float(own.values.max())))
    seeds = float(of_seeds[at])
    row = np.zeros((1, len(members)))
    row[0, at] = 1
    variance = float(own.sample(row)[0][0, 0])
    if select.is_share:
        share = min(1.0, max(0.0, expected))
        variance = own.crossing * share * (1 - share) / float(own.images()[at]) + seeds
    quantile = NormalDist().inv_cdf((1 + LEVEL) / 2)
    if seeds > 0:
        from scipy import stats

        degrees = own.spread.degrees * max(1.0, variance / seeds) ** 2
        quantile = float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    half = quantile * math.sqrt(variance)
    return Winner(expected, around(expected, half, is_share=select.is_share, n=float(own.images()[at])))
