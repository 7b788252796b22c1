"""Which settings of a sweep are as good as the best one, as far as the data can tell.

With results per image: a bootstrap over the images, paired between the settings that were measured on the same images,
to which the noise between seeds is added where a setting was trained with several.

- A setting stays in the set unless a test rejects that it is the best. Its statistic is the largest of its studentised
  differences to the other settings; the bootstrap gives the distribution of this maximum if all were equal, so that the
  truly best setting is in the set with 95 % (a subset selection as in Hsu, Multiple Comparisons, 1996, chapter 4;
  studentised as in Romano and Wolf 2005, Econometrica 73:1237).
- The probability of being the best is the share of the resamples in which a setting has the best mean.
- The value of the winner as measured is too good, because it was selected for its value. In each resample, the winner
  is selected on the drawn images and measured on those that were not drawn (Efron and Tibshirani 1997, JASA 92:548);
  with several seeds also on a seed that did not take part in the selection. The mean is free of that bias.

Without results per image: the difference beyond which a setting is worse than the best, from src/results/effects.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from src.results.image_scores import SCORES, ImageGroup, kept_of, read_groups
from src.results.intervals import LEVEL
from src.results.ranking import Ranking
from src.results.seeds import SettingResults, pooled_sd
from src.runs.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RESAMPLES = 1000
# The bias of the winner is a mean, which needs fewer resamples than the tails of a distribution.
_WINNER_RESAMPLES = 500
# Memory: a batch has this many resamples x images.
_BATCH = 100
# The test takes time in proportion to the square of the number of settings. Beyond this many, the screening decides.
_MOST_TESTED = 300


@dataclass(frozen=True)
class Winner:
    """The best setting's value: as `measured`, and free of the bias of its selection with a 95 % interval."""

    measured: float
    unbiased: float
    low: float
    high: float


@dataclass(frozen=True)
class BestSet:
    """The settings that cannot be told from the best one, by the names of their first runs; the best one is first.

    `method`: "bootstrap" or "threshold". `probability`: of being the best, by name, only with the bootstrap. `winner`:
    likewise. `sentence`: the method, and what it does not cover. `image_sets`: how many different sets of images the
    bootstrap is over; 0 without it.
    """

    method: str
    names: Sequence[str]
    compared: int
    probability: dict[str, float]
    winner: Winner | None
    sentence: str
    image_sets: int = 0


def best_set_by_threshold(settings: Sequence[SettingResults], select: Ranking, threshold: float, note: str) -> BestSet:
    """The settings whose mean is at most `threshold` worse than the best mean. `settings`: the best first."""
    best = select.score(settings[0].mean)
    names = [each.name for each in settings if best - select.score(each.mean) <= threshold]
    sentence = f"A setting counts as worse if its {select.column} is more than {threshold:.4f} from the best. {note}"
    return BestSet("threshold", names, len(settings), {}, None, sentence)


def best_set_by_images(
    settings: Sequence[SettingResults], select: Ranking, predictions_of: Callable[[str], Predictions | None]
) -> BestSet | None:
    """The set by the bootstrap over images; None if the metric is no mean over images, a run that counts has no
    predictions, or the runs of one setting were measured on different images.

    `settings`: the best first. `predictions_of`: from a run's name. Raises RunError if a file is damaged.
    """
    score_of = SCORES.get(select.name)
    first = predictions_of(settings[0].name) if score_of else None
    if score_of is None or first is None:
        return None
    noise, degrees = pooled_sd(settings)
    limit = _limit(1 - (1 - LEVEL) / len(settings), degrees)
    # The standard deviation of a difference of two shares is at most 1: the files of hopeless runs need not be read.
    # Their images may be fewer if the data set is an axis.
    bounded = select.name != "loss" and not any(name.startswith("dataset.") for name in settings[0].rows[0])
    widest = (1 / math.sqrt(len(first.label)) + 2 * noise) * limit if bounded and len(first.label) else math.inf
    top = select.score(settings[0].mean)
    chosen = [each for each in settings if top - select.score(each.mean) <= widest]
    groups = read_groups(chosen, score_of, predictions_of)
    if groups is None or not all(len(group.scores) for group in groups):
        return None
    chosen, groups = kept_of(groups, chosen, _screened(chosen, groups, noise, limit))
    return _Bootstrap(chosen, groups, noise, degrees).best_set(len(settings), select)


def _limit(level: float, degrees: int) -> float:
    """The quantile of Student's distribution; of the normal one without repetitions, whose spread is known."""
    if not degrees:
        return NormalDist().inv_cdf(level)
    from scipy import stats

    return float(stats.t.ppf(level, degrees))


def _screened(
    settings: Sequence[SettingResults], groups: Sequence[ImageGroup], noise: float, limit: float
) -> list[int]:
    """The numbers of the settings without those that already a test against the best alone excludes, at a level divided
    by the number of settings. The test of the maximum would exclude them too, with more work.
    """
    first, kept = groups[0], []
    best, best_seeds = first.means[:, 0], 1 / len(settings[0].values)
    for group in groups:
        for place, number in enumerate(group.members):
            own = group.means[:, place]
            if group is first:
                variance = float((best - own).var()) / len(own)
            else:
                variance = float(best.var()) / len(best) + float(own.var()) / len(own)
            error = math.sqrt(variance + noise**2 * (best_seeds + 1 / len(settings[number].values)))
            if float(best.mean()) - float(own.mean()) <= limit * error:
                kept.append(number)
    return sorted(kept)


class _Bootstrap:
    """Resamples of the images of each group; the settings of one group are resampled together."""

    def __init__(
        self, settings: Sequence[SettingResults], groups: Sequence[ImageGroup], noise: float, degrees: int
    ) -> None:
        import numpy as np

        self._settings, self._groups, self._noise, self._degrees = settings, groups, noise, degrees
        self._random = np.random.default_rng(0)
        self._sizes = np.array([len(each.values) for each in settings])
        self._starts = np.cumsum([0, *self._sizes[:-1]])

    def best_set(self, compared: int, select: Ranking) -> BestSet:
        """The set, out of `compared` settings."""
        import numpy as np

        values, resampled, selected = self._resample()
        names = [each.name for each in self._settings]
        members = self._members(values, resampled)
        tops = resampled >= resampled.max(axis=1, keepdims=True)
        shares = (tops / tops.sum(axis=1, keepdims=True)).mean(axis=0)
        ends = np.quantile(resampled[:, 0] - values[0], ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        low, high = sorted(select.score(float(selected.mean() + end)) for end in ends)
        winner = Winner(select.score(float(values[0])), select.score(float(selected.mean())), low, high)
        probability = {name: float(share) for name, share in zip(names, shares, strict=True)}
        chosen = [name for name, member in zip(names, members, strict=True) if member]
        return BestSet("bootstrap", chosen, compared, probability, winner, self._sentence(), len(self._groups))

    def _sentence(self) -> str:
        images = f"{len(self._groups[0].scores):,} images of val"
        if len(self._groups) > 1:
            images = (
                f"images of val, of which there are {len(self._groups)} different sets: only settings with the same "
                "images are paired"
            )
        if self._degrees:
            covers = "The noise between seeds is part of it, taken as equal in all settings."
        else:
            covers = (
                "It compares these trained networks. With one seed per setting, it cannot say how much of a difference "
                "another seed would change."
            )
        return f"A paired bootstrap over the {images}; the best setting is among the marked ones with 95 %. {covers}"

    def _resample(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """The means of the settings (settings,), of each resample (resamples, settings), and of each resample's winner
        on images and seeds that did not select it (winner resamples,).
        """
        import numpy as np

        drawn, selected = [], []
        for start in range(0, _RESAMPLES, _BATCH):
            draws = [self._draw(len(group.scores)) for group in self._groups]
            drawn.append(np.empty((_BATCH, len(self._settings))))
            for group, counts in zip(self._groups, draws, strict=True):
                drawn[-1][:, group.members] = (counts @ group.means) / len(group.scores)
            if start < _WINNER_RESAMPLES:
                selected.append(self._value_of_winner(draws))
        values = np.empty(len(self._settings))
        for group in self._groups:
            values[group.members] = group.means.mean(axis=0, dtype="float64")
        return values, np.concatenate(drawn) + self._seed_noise(), np.concatenate(selected)

    def _draw(self, n: int) -> NDArray[np.float32]:
        """How often each of `n` images is drawn in each resample of a batch, (batch, n)."""
        import numpy as np

        indices = self._random.integers(0, n, (_BATCH, n)) + n * np.arange(_BATCH)[:, None]
        return np.bincount(indices.ravel(), minlength=n * _BATCH).reshape(_BATCH, n).astype("float32")

    def _seed_noise(self) -> NDArray[np.float64]:
        import numpy as np

        shape = (_RESAMPLES, len(self._settings))
        if not self._degrees:
            return np.zeros(shape)
        # The spread between seeds is itself an estimate: the heavier tails of Student's distribution.
        spread = self._noise * np.sqrt(self._degrees / self._random.chisquare(self._degrees, (_RESAMPLES, 1)))
        noise: NDArray[np.float64] = self._random.standard_normal(shape) * spread / np.sqrt(self._sizes)
        return noise

    def _value_of_winner(self, draws: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """For each resample, of which `draws` has the counts of each group (resamples, N), the winner's mean over the
        images with count 0, (resamples,).
        """
        import numpy as np

        rows, sizes = np.arange(_BATCH), self._sizes
        inside, left_out = np.empty((2, _BATCH, int(sizes.sum())))
        for group, counts in zip(self._groups, draws, strict=True):
            outside = (counts == 0).astype("float32")
            inside[:, group.runs] = (counts @ group.scores) / counts.shape[1]
            left_out[:, group.runs] = (outside @ group.scores) / outside.sum(axis=1, keepdims=True)
        # One seed of each setting measures, the others select; a single seed does both.
        measuring = self._starts + self._random.integers(0, sizes, (_BATCH, len(sizes)))
        totals, own = np.add.reduceat(inside, self._starts, axis=1), np.take_along_axis(inside, measuring, axis=1)
        selecting = np.where(sizes > 1, (totals - own) / np.maximum(sizes - 1, 1), own)
        found: NDArray[np.float64] = left_out[rows, measuring[rows, selecting.argmax(axis=1)]].astype("float64")
        return found

    def _members(self, values: NDArray[np.float64], resampled: NDArray[np.float64]) -> list[bool]:
        """Whether it cannot be rejected, for each setting, that it is the best."""
        import numpy as np

        count = len(values)
        if count > _MOST_TESTED:
            return [True] * count
        covariance = np.diag(self._noise**2 / self._sizes)
        for group in self._groups:
            own = np.cov(group.means, rowvar=False).reshape(2 * (len(group.members),)) / len(group.means)
            covariance[np.ix_(group.members, group.members)] += own
        variance, deviations, members = np.diag(covariance), resampled - values, []
        for number in range(count):
            differences = deviations - deviations[:, [number]]
            # Not less than rounding: two settings may have predicted the same.
            errors = np.sqrt(np.maximum(variance + variance[number] - 2 * covariance[number], 1e-12))
            statistic = float(((values - values[number]) / errors).max())
            largest = (differences / errors).max(axis=1)
            members.append(statistic <= 0 or float((largest >= statistic).mean()) > 1 - LEVEL)
        return members
