"""Which settings of a sweep are as good as the best one, as far as the data can tell.

With results per image: a bootstrap over the images, paired between the settings (all were measured on the same images),
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

from src.config.schema import Select
from src.results.intervals import LEVEL
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

# The score of each image, by selecting metric: higher is better, float (N,).
_SCORES: dict[str, Callable[[Predictions], NDArray[np.float64]]] = {
    "accuracy": lambda found: found.correct.astype("float64"),
    "top5_accuracy": lambda found: found.in_top5.astype("float64"),
    "loss": lambda found: -found.loss,
}


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
    likewise. `sentence`: the method, and what it does not cover.
    """

    method: str
    names: Sequence[str]
    compared: int
    probability: dict[str, float]
    winner: Winner | None
    sentence: str


def best_set_by_threshold(settings: Sequence[SettingResults], select: Select, threshold: float, note: str) -> BestSet:
    """The settings whose mean is at most `threshold` worse than the best mean. `settings`: the best first."""
    best = select.score(settings[0].mean)
    names = [each.name for each in settings if best - select.score(each.mean) <= threshold]
    sentence = f"A setting counts as worse if its {select.column} is more than {threshold:.4f} from the best. {note}"
    return BestSet("threshold", names, len(settings), {}, None, sentence)


def best_set_by_images(
    settings: Sequence[SettingResults], select: Select, predictions_of: Callable[[str], Predictions | None]
) -> BestSet | None:
    """The set by the bootstrap over images; None if the metric is no mean over images, or a run that counts has no
    predictions on the same images as the others.

    `settings`: the best first. `predictions_of`: from a run's name. Raises RunError if a file is damaged.
    """
    score_of = _SCORES.get(select.name)
    first = predictions_of(settings[0].name) if score_of else None
    if score_of is None or first is None:
        return None
    noise, degrees = pooled_sd(settings)
    limit = _limit(1 - (1 - LEVEL) / len(settings), degrees)
    # The standard deviation of a difference of two shares is at most 1: the files of hopeless runs need not be read.
    widest = (1 / math.sqrt(len(first.label)) + 2 * noise) * limit if select.name != "loss" else math.inf
    top = select.score(settings[0].mean)
    chosen = [each for each in settings if top - select.score(each.mean) <= widest]
    scores = _read_scores(chosen, first, score_of, predictions_of)
    if scores is None:
        return None
    chosen, scores = _screened(chosen, scores, noise, limit)
    return _Bootstrap(chosen, scores, noise, degrees).best_set(len(settings), select)


def _limit(level: float, degrees: int) -> float:
    """The quantile of Student's distribution; of the normal one without repetitions, whose spread is known."""
    if not degrees:
        return NormalDist().inv_cdf(level)
    from scipy import stats

    return float(stats.t.ppf(level, degrees))


def _read_scores(
    settings: Sequence[SettingResults],
    first: Predictions,
    score_of: Callable[[Predictions], NDArray[np.float64]],
    predictions_of: Callable[[str], Predictions | None],
) -> NDArray[np.float32] | None:
    """The scores of all runs, float (N, runs), setting by setting; None if one was not measured on the same images."""
    import numpy as np

    columns = []
    for row in (row for each in settings for row in each.rows):
        found = predictions_of(str(row["run"]))
        if found is None or not np.array_equal(found.label, first.label):
            return None
        columns.append(score_of(found).astype("float32"))
    return np.stack(columns, axis=1)


def _screened(
    settings: Sequence[SettingResults], scores: NDArray[np.float32], noise: float, limit: float
) -> tuple[list[SettingResults], NDArray[np.float32]]:
    """Without the settings that already a test against the best alone excludes, at a level divided by the number of
    settings. The test of the maximum would exclude them too, with more work.
    """
    import numpy as np

    means, starts = _setting_means(settings, scores)
    kept: list[SettingResults] = []
    columns: list[int] = []
    for number, each in enumerate(settings):
        difference = means[:, 0] - means[:, number]
        seeds = noise**2 * (1 / len(settings[0].values) + 1 / len(each.values))
        error = math.sqrt(float(difference.var()) / len(difference) + seeds)
        if float(difference.mean()) <= limit * error:
            kept.append(each)
            columns += range(starts[number], starts[number] + len(each.values))
    return kept, np.take(scores, columns, axis=1)


def _setting_means(
    settings: Sequence[SettingResults], scores: NDArray[np.float32]
) -> tuple[NDArray[np.float32], list[int]]:
    """The mean over the seeds of each setting, float (N, settings), and the first column of each setting."""
    import numpy as np

    counts = [len(each.values) for each in settings]
    starts = [sum(counts[:number]) for number in range(len(counts))]
    return np.add.reduceat(scores, starts, axis=1) / np.array(counts, dtype="float32"), starts


class _Bootstrap:
    """Resamples of the images. `scores`: float (N, runs), setting by setting, the best setting first."""

    def __init__(
        self, settings: Sequence[SettingResults], scores: NDArray[np.float32], noise: float, degrees: int
    ) -> None:
        import numpy as np

        self._settings, self._scores, self._noise, self._degrees = settings, scores, noise, degrees
        self._random = np.random.default_rng(0)
        self._means, self._starts = _setting_means(settings, scores)

    def best_set(self, compared: int, select: Select) -> BestSet:
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
        return BestSet("bootstrap", chosen, compared, probability, winner, self._sentence())

    def _sentence(self) -> str:
        images = f"{len(self._scores):,} images of val"
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

        n = len(self._scores)
        drawn, selected = [], []
        for start in range(0, _RESAMPLES, _BATCH):
            indices = self._random.integers(0, n, (_BATCH, n)) + n * np.arange(_BATCH)[:, None]
            counts = np.bincount(indices.ravel(), minlength=n * _BATCH).reshape(_BATCH, n).astype("float32")
            drawn.append((counts @ self._means) / n)
            if start < _WINNER_RESAMPLES:
                selected.append(self._value_of_winner(counts))
        noisy = np.concatenate(drawn).astype("float64") + self._seed_noise()
        return self._means.mean(axis=0, dtype="float64"), noisy, np.concatenate(selected)

    def _seed_noise(self) -> NDArray[np.float64]:
        import numpy as np

        shape = (_RESAMPLES, len(self._settings))
        if not self._degrees:
            return np.zeros(shape)
        # The spread between seeds is itself an estimate: the heavier tails of Student's distribution.
        spread = self._noise * np.sqrt(self._degrees / self._random.chisquare(self._degrees, (_RESAMPLES, 1)))
        counts = np.array([len(each.values) for each in self._settings])
        noise: NDArray[np.float64] = self._random.standard_normal(shape) * spread / np.sqrt(counts)
        return noise

    def _value_of_winner(self, counts: NDArray[np.float32]) -> NDArray[np.float64]:
        """For each row of `counts` (resamples, N), the winner's mean over the images with count 0, (resamples,)."""
        import numpy as np

        n, rows = counts.shape[1], np.arange(len(counts))
        outside = (counts == 0).astype("float32")
        inside = (counts @ self._scores) / n
        left_out = (outside @ self._scores) / outside.sum(axis=1, keepdims=True)
        sizes = np.array([len(each.values) for each in self._settings])
        # One seed of each setting measures, the others select; a single seed does both.
        measuring = np.array(self._starts) + self._random.integers(0, sizes, (len(counts), len(sizes)))
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
        sizes = np.array([len(each.values) for each in self._settings])
        covariance = np.cov(self._means, rowvar=False).reshape(count, count) / len(self._means)
        covariance += np.diag(self._noise**2 / sizes)
        variance, deviations, members = np.diag(covariance), resampled - values, []
        for number in range(count):
            differences = deviations - deviations[:, [number]]
            # Not less than rounding: two settings may have predicted the same.
            errors = np.sqrt(np.maximum(variance + variance[number] - 2 * covariance[number], 1e-12))
            statistic = float(((values - values[number]) / errors).max())
            largest = (differences / errors).max(axis=1)
            members.append(statistic <= 0 or float((largest >= statistic).mean()) > 1 - LEVEL)
        return members
