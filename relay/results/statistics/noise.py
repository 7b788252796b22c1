"""The noise of the values of settings: the luck of the images and that of the seeds, each counted once.

Every statement about a sweep is a contrast of one vector: the value of each setting, the mean over its seeds, for which
higher is better. Its covariance has two parts:

- the images: the covariance over images of the settings' scores, divided by the number of images. Settings that were
  measured on the same images share their luck; those of different image sets do not;
- the seeds: the variance of a run on these images, less the part of it that is noise of the images and therefore in the
  first part already, divided by the number of seeds. It comes from the repetitions, or, with one seed per setting, from
  what the main effects and pairs of the grid leave, if that has at least four degrees of freedom.

The variance of a run is itself an estimate: each draw of the noise takes another plausible one from the chi-squared
distribution (Weerahandi 1993, JASA 88:899), which gives contrasts of images and seeds together the right tails. Images
and seeds as crossed random effects: Owen 2007, Ann. Appl. Stat. 1:386; Gallas 2006, Acad. Radiol. 13:353.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relay.results.statistics.design import LEAST_DEGREES
from relay.results.statistics.image_scores import ImageGroup, kept_of
from relay.results.statistics.intervals import CROSSED_VARIANCE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWS = 4000
# Fewer degrees of freedom than these are no estimate of the variance in the better half of the settings.
_LEAST_OF_SEEDS, _LEAST_OF_RESIDUAL = 4, 8
# Settings times draws at a time, to save memory.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class Spread:
    """The variance of a run on these images: `variance`, its degrees of freedom, and the part `of_images` that is noise
    of the images. Without an estimate, all are 0.
    """

    variance: float
    degrees: float
    of_images: float

    @property
    def of_seeds(self) -> float:
        """The variance between seeds that the images do not explain."""
        return max(0.0, self.variance - self.of_images)


NO_SPREAD = Spread(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Noise:
    """`values`: of the settings, higher is better, float (K,). `seeds`: runs of each setting, (K,). `groups`: the
    scores per image; empty without results per image. `spread`: that of a run. `better`: that of the better half of
    the settings, if it is known to be larger. `crossing`: the variance of a mean over images, as a multiple of that of
    one network on these images.
    """

    values: NDArray[np.float64]
    seeds: NDArray[np.float64]
    groups: Sequence[ImageGroup]
    spread: Spread
    better: Spread
    crossing: float = 1.0

    @property
    def has_images(self) -> bool:
        """Whether the luck of the images is part of the noise."""
        return bool(self.groups)

    def images(self) -> NDArray[np.float64]:
        """On how many images each setting was measured, (K,); infinity without results per image."""
        import numpy as np

        counts = np.full(len(self.values), np.inf)
        for group in self.groups:
            counts[group.members] = len(group.means)
        return counts

    def of_better_half(self) -> Noise:
        """The same with the spread of the better settings, where that is larger: the best settings are among them."""
        return replace(self, spread=self.better)

    def restricted(self, kept: Sequence[int]) -> Noise:
        """The noise of the settings with the numbers `kept`, numbered anew; the spread stays that of all."""
        groups = kept_of(self.groups, kept)
        return replace(self, values=self.values[kept], seeds=self.seeds[kept], groups=groups)

    def sample(
        self, contrasts: NDArray[np.float64], count: int = DRAWS
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The covariance (C, C) of contrasts (C, K) of the values, and draws of their noise, (count, C). The same draws
        each time.
        """
        import numpy as np

        random, size = np.random.default_rng(0), (count, len(contrasts))
        by_images = self._of_images(contrasts) + (contrasts * self._floor()) @ contrasts.T
        by_seeds = (contrasts / self.seeds) @ contrasts.T
        drawn = random.standard_normal(size) @ _root(by_images)
        if self.spread.degrees:
            drawn += self._drawn_sd(random, count)[:, None] * (random.standard_normal(size) @ _root(by_seeds))
        return by_images + self.spread.of_seeds * by_seeds, drawn

    def half_widths(self, level: float) -> NDArray[np.float64]:
        """How far the value of each setting is from the truth, at most, with `level`: of new images and seeds, (K,)."""
        import numpy as np

        own = self._floor().copy()
        for group in self.groups:
            variance = group.means.var(axis=0, dtype="float64", ddof=1)
            own[group.members] += self.crossing * variance / len(group.means)
        if not self.spread.degrees:
            from statistics import NormalDist

            widths: NDArray[np.float64] = np.sqrt(own) * NormalDist().inv_cdf((1 + level) / 2)
            return widths
        random, found = np.random.default_rng(0), []
        step = max(1, _BLOCK // DRAWS)
        for start in range(0, len(own), step):
            part = slice(start, start + step)
            size = DRAWS, len(own[part])
            sd = self._drawn_sd(random, DRAWS)[:, None] / np.sqrt(self.seeds[part])
            drawn = random.standard_normal(size) * np.sqrt(own[part]) + random.standard_normal(size) * sd
            found.append(np.quantile(np.abs(drawn), level, axis=0))
        return np.concatenate(found)

    def _drawn_sd(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Plausible standard deviations between seeds, (count,)."""
        import numpy as np

        spread = self.spread
        variances = spread.variance * spread.degrees / random.chisquare(spread.degrees, count)
        drawn: NDArray[np.float64] = np.sqrt(np.maximum(0.0, variances - spread.of_images))
        return drawn

    def _floor(self) -> NDArray[np.float64]:
        """A continuity correction of half an image, so that nearly perfect or few results have a width, (K,)."""
        return 0.5 / self.images() ** 2

    def _of_images(self, contrasts: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        total = np.zeros(2 * (len(contrasts),))
        for group in self.groups:
            own = _centred(group, contrasts[:, group.members].T)
            total += self.crossing * (own.T @ own) / _scale(len(own))
        return total


def noise_of(
    values: Sequence[Sequence[float]],
    groups: Sequence[ImageGroup],
    basis: NDArray[np.float64] | None,
    *,
    crossed: bool = False,
) -> Noise:
    """The noise of settings. `values`: the scores of the runs of each setting; with results per image, those of
    `groups` are taken in their place.

    `basis`: orthonormal columns that span what the model of a grid explains, (K, P); it is used where no setting has
    several seeds. None if the settings are no grid. `crossed`: the scores are crossed ones, of several epochs.
    """
    import numpy as np

    sizes = np.array([len(own) for own in values])
    setting = np.repeat(np.arange(len(values)), sizes)
    runs = np.array([value for own in values for value in own], dtype="float64")
    for group in groups:
        runs[group.runs] = group.scores.mean(axis=0, dtype="float64")
    means = np.bincount(setting, weights=runs) / sizes
    if len(runs) > len(values) and not _are_equal(runs, means[setting]):
        pooled, better = _of_repetitions(runs, setting, sizes, means, groups)
    elif len(runs) == len(values) and basis is not None and len(values) - basis.shape[1] >= LEAST_DEGREES:
        pooled, better = _of_residual(means, basis, groups)
    else:
        pooled = better = NO_SPREAD
    larger = better if better.variance > pooled.variance else pooled
    # The choice of the epochs adds to the noise of a run. An estimate of that noise has it already.
    crossing = CROSSED_VARIANCE if crossed and not pooled.degrees else 1.0
    return Noise(means, sizes.astype("float64"), groups, pooled, larger, crossing)


def _are_equal(runs: NDArray[np.float64], means: NDArray[np.float64]) -> bool:
    """Whether all repetitions have the same value, up to rounding: they then say nothing about the noise."""
    import numpy as np

    return bool(np.abs(runs - means).max() <= 1e-12 * np.abs(means).max())


def _of_repetitions(
    runs: NDArray[np.float64],
    setting: NDArray[np.int64],
    sizes: NDArray[np.int64],
    means: NDArray[np.float64],
    groups: Sequence[ImageGroup],
) -> tuple[Spread, Spread]:
    """The spread between seeds, pooled over the settings, and over the better half of them."""
    import numpy as np

    squares, of_images = (runs - means[setting]) ** 2, np.zeros(len(runs))
    for group in groups:
        place = {number: column for column, number in enumerate(group.members)}
        own = [place[number] for number in setting[group.runs]]
        # What is left of a run's score on each image after its setting's mean, of which its own mean is no noise of
        # the images.
        rest = (group.scores - group.means[:, own]).astype("float64")
        of_images[group.runs] = rest.var(axis=0) * len(rest) / _scale(len(rest))

    def pooled(chosen: NDArray[np.bool_]) -> Spread:
        degrees = int((sizes[chosen] - 1).sum())
        inside = chosen[setting]
        return Spread(float(squares[inside].sum()) / degrees, degrees, float(of_images[inside].sum()) / degrees)

    everything = pooled(np.full(len(sizes), True))
    good = means >= np.median(means)
    enough = int((sizes[good] - 1).sum()) >= _LEAST_OF_SEEDS
    return everything, pooled(good) if enough else NO_SPREAD


def _of_residual(
    values: NDArray[np.float64], basis: NDArray[np.float64], groups: Sequence[ImageGroup]
) -> tuple[Spread, Spread]:
    """The residual mean square of the model, and that of the better half of the settings."""
    import numpy as np

    fitted = basis @ (basis.T @ values)
    squares, of_images = (values - fitted) ** 2, _residual_of_images(basis, groups, len(values))
    leverage = (basis**2).sum(axis=1)
    degrees = len(values) - basis.shape[1]
    # Values that the model explains up to rounding: nothing is left but digits.
    least = (1e-9 * float(np.abs(values).max())) ** 2
    pooled = Spread(max(float(squares.sum()) / degrees, least), degrees, float(of_images.sum()) / degrees)
    good = fitted >= np.median(fitted)
    degrees_good = float((1 - leverage[good]).sum())
    if degrees_good < _LEAST_OF_RESIDUAL or good.all():
        return pooled, NO_SPREAD
    # The sums of squares of both halves mix their two variances (Rao 1970, MINQUE, JASA 65:161).
    halves = (good, ~good)
    crosses = [basis[half].T @ basis[half] for half in halves]
    mixed = np.array([[float((one * other).sum()) for other in crosses] for one in crosses])
    mixed += np.diag([float(half.sum()) - 2 * float(leverage[half].sum()) for half in halves])
    if np.linalg.cond(mixed) > 1e6:
        return pooled, NO_SPREAD
    found = [float(np.linalg.solve(mixed, [own[half].sum() for half in halves])[0]) for own in (squares, of_images)]
    return pooled, Spread(found[0], degrees_good, max(0.0, found[1]))


def _residual_of_images(basis: NDArray[np.float64], groups: Sequence[ImageGroup], count: int) -> NDArray[np.float64]:
    """The noise of the images in each squared residual, (K,): the diagonal of Q C Q, with Q the projection on what the
    model leaves and C the covariance by the images, without building either.
    """
    import numpy as np

    own, across = np.zeros(count), np.zeros_like(basis)
    for group in groups:
        images, inside = len(group.means), _centred(group, basis[group.members])
        own[group.members] += group.means.var(axis=0, dtype="float64") * images / _scale(images)
        across[group.members] += (group.means.T @ inside.astype("float32")).astype("float64") / _scale(images)
    explained = basis.T @ across
    found: NDArray[np.float64] = own - 2 * (across * basis).sum(axis=1) + ((basis @ explained) * basis).sum(axis=1)
    return np.maximum(found, 0.0)


def _centred(group: ImageGroup, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the settings' scores with weights (members, C), less their means over the images, (N, C)."""
    sums = (group.means @ weights.astype("float32")).astype("float64")
    centred: NDArray[np.float64] = sums - sums.mean(axis=0)
    return centred


def _scale(images: int) -> int:
    """What a sum of squares over images is divided by, to be the variance of a mean over them."""
    return max(1, (images - 1) * images)


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A root of a covariance (C, C): standard normal rows times it have that covariance."""
    import numpy as np

    values, vectors = np.linalg.eigh(matrix)
    root: NDArray[np.float64] = (vectors * np.sqrt(np.maximum(values, 0.0))).T
    return root
