"""Simulated sweeps, whose truth is known: images, settings, seeds and epochs in a probit model.

An image is classified correctly if a normal variable, partly its difficulty for all networks and partly the luck of one
network, lies below the quantile of the network's true accuracy. Seeds move that accuracy. With epochs, each epoch is a
network of its own, which shares part of that luck with the other epochs of its run.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from relay.results.answer import Answer, answer_of
from relay.results.statistics.design import Design
from relay.results.statistics.failures import find_outliers
from relay.results.statistics.image_scores import ImageGroup
from relay.results.statistics.noise import Noise, noise_of
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Row, Table
from relay.runs.cells import SEED_AXIS
from relay.runs.predictions import Predictions

Random = np.random.Generator
Floats = NDArray[np.float64]
SELECT = Ranking()
# The part of the variance that is the difficulty of an image for all networks, and the part that the epochs of a run
# share.
COMMON, OF_RUN = 0.6, 0.2


@dataclass(frozen=True)
class Sweep:
    """The results of settings with a known truth.

    `truths`: the accuracy of each setting on all images, mean over all seeds, (K,). `networks`: that of each run, by
    setting. `correct`: (N, runs) float32, setting by setting, or other scores for which higher is better; None without
    results per image. `values`: the displayed value of each run, by setting. `points`: the values of its axes, by
    setting. `chosen`: as `correct`, of the displayed epoch, where `correct` are the crossed ones.
    """

    truths: Floats
    networks: Sequence[Floats]
    correct: NDArray[np.float32] | None
    values: Sequence[Floats]
    points: Sequence[Mapping[str, Any]]
    chosen: NDArray[np.float32] | None = None

    @property
    def repeated(self) -> bool:
        """Whether a setting has several seeds."""
        return any(len(own) > 1 for own in self.values)

    @property
    def best(self) -> set[int]:
        """The settings that are truly the best."""
        return set(np.flatnonzero(self.truths >= self.truths.max() - 1e-12).tolist())

    def without(self, share: float, random: Random) -> Sweep:
        """The sweep after a random `share` of its settings is lost."""
        count = len(self.values)
        return self.restricted(sorted(random.choice(count, round(count * (1 - share)), replace=False).tolist()))

    def restricted(self, kept: Sequence[int]) -> Sweep:
        """The sweep of the settings with the numbers `kept`."""
        columns = np.concatenate([np.arange(self._ends[k] - len(self.values[k]), self._ends[k]) for k in kept])
        return replace(
            self,
            truths=self.truths[list(kept)],
            networks=[self.networks[number] for number in kept],
            correct=None if self.correct is None else self.correct[:, columns],
            values=[self.values[number] for number in kept],
            points=[self.points[number] for number in kept] if self.points else (),
            chosen=None if self.chosen is None else self.chosen[:, columns],
        )

    def design(self) -> Design:
        """The model of the grid."""
        return _design(tuple(tuple(point.items()) for point in self.points), self.repeated)

    def noise(self, *, is_grid: bool = True) -> Noise:
        """The noise, as the results of a sweep have it."""
        basis = self.design().basis if is_grid and self.points else None
        values = [own.tolist() for own in self.values]
        return noise_of(values, self.groups(), basis, crossed=self.chosen is not None)

    def without_collapsed(self) -> Sweep:
        """The sweep that is compared: without the settings that relay/results/answer.py leaves out."""
        if self.repeated or not self.points:
            return self
        values = np.array([own.mean() for own in self.values]) if self.correct is None else self.correct.mean(axis=0)
        everything = range(len(self.values))
        collapsed = find_outliers(values.astype("float64"), lambda kept: self.restricted(kept).design()).collapsed
        return self.restricted([number for number in everything if number not in collapsed]) if collapsed else self

    def groups(self) -> list[ImageGroup]:
        """The scores per image."""
        if self.correct is None:
            return []
        sizes = [len(own) for own in self.values]
        parts = np.split(self.correct, np.cumsum(sizes)[:-1], axis=1)
        means = np.stack([part.mean(axis=1) for part in parts], axis=1)
        return [ImageGroup(list(range(len(sizes))), list(range(sum(sizes))), self.correct, means)]

    def table(self, failed: Sequence[int] = ()) -> Table:
        """The table of the runs, `s0` or `s0-1` (setting and seed). `failed`: numbers of settings that crashed."""
        rows: list[Row] = []
        for number, own in enumerate(self.values):
            for seed, value in enumerate(own.tolist()):
                row: Row = {"index": len(rows), "run": f"s{number}-{seed}", "state": "done", **self.points[number]}
                row |= {SEED_AXIS: seed, "val/accuracy": value, "epochs": 1.0 if self.chosen is None else 2.0}
                if number in failed:
                    row |= {"state": "crashed", "val/accuracy": None}
                rows.append(row)
        axes = [*self.points[0], *([SEED_AXIS] if self.repeated else [])]
        return Table("simulated", rows, axes, SELECT)

    def answer(self, failed: Sequence[int] = (), *, is_grid: bool = True) -> Answer:
        """What is said about the table and the results per image."""
        table = self.table(failed)
        columns = {row["run"]: number for number, row in enumerate(table.rows)}

        def predictions_of(run: str) -> Predictions | None:
            if self.correct is None:
                return None
            scores = self.correct[:, columns[run]]
            if self.chosen is None:
                return _predictions(scores)
            return replace(_predictions(self.chosen[:, columns[run]]), crossed=_predictions(scores))

        return answer_of(table, predictions_of, is_grid=is_grid)

    @property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([len(own) for own in self.values])


@functools.lru_cache(maxsize=16)
def _design(points: tuple[tuple[tuple[str, Any], ...], ...], repeated: bool) -> Design:
    """The model of a grid, which many replications share."""
    return Design([dict(point) for point in points], [axis for axis, _ in points[0]], repeated=repeated)


def _predictions(correct: NDArray[np.float32]) -> Predictions:
    label = np.zeros(len(correct), dtype="int64")
    return Predictions(label, (correct == 0).astype("int64"), label + 0.5, label + 0.5, correct > 0, "images")


def grid_of(*sizes: int) -> list[dict[str, int]]:
    """The settings of a complete grid of axes a, b, ... with these numbers of values."""
    names = "abcdefgh"[: len(sizes)]
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*map(range, sizes))]


def sweep_of(
    random: Random,
    truths: Sequence[float] | Floats,
    images: int,
    *,
    seeds: int | Sequence[int] = 1,
    sd: float | Floats = 0.0,
    points: Sequence[Mapping[str, Any]] = (),
    luck: Floats | None = None,
    common: float = COMMON,
) -> Sweep:
    """Draw the results of settings.

    `images`: 0 for none, in which case `sd` is the noise of a run on these images. `sd`: of a seed, or of each
    setting's seeds. `luck`: shifts of the latent variable that settings share on an image, (N, K).
    """
    truths = np.asarray(truths, dtype="float64")
    setting, networks, ends = _networks(random, truths, seeds, sd)
    if not images:
        return Sweep(truths, np.split(networks, ends), None, np.split(networks, ends), points)
    latent = random.standard_normal((images, len(setting)), dtype="float32") * np.float32(np.sqrt(1 - common))
    latent += random.standard_normal((images, 1), dtype="float32") * np.float32(np.sqrt(common))
    if luck is not None:
        latent += luck[:, setting].astype("float32")
    correct = (latent < special.ndtri(networks)).astype("float32")
    values = correct.mean(axis=0, dtype="float64")
    return Sweep(truths, np.split(networks, ends), correct, np.split(values, ends), points)


def losses_of(
    random: Random, truths: Sequence[float], images: int, *, sd: float, points: Sequence[Mapping[str, Any]]
) -> Sweep:
    """The same with a lognormal loss on each image, whose mean over all images is `truths`; one seed each. The scores
    are the negative losses.
    """
    means = np.asarray(truths) + sd * random.standard_normal(len(truths))
    hard = random.standard_normal((images, 1)) * np.sqrt(COMMON)
    own = random.standard_normal((images, len(means))) * np.sqrt(1 - COMMON)
    scores = -np.exp(hard + own - 0.5) * means
    values = scores.mean(axis=0)
    ends = np.arange(1, len(means))
    return Sweep(-np.asarray(truths), np.split(-means, ends), scores.astype("float32"), np.split(values, ends), points)


def epochs_of(
    random: Random,
    truths: Sequence[float] | Floats,
    images: int,
    epochs: int,
    *,
    seeds: int = 1,
    sd: float = 0.0,
    epoch_sd: float = 0.0,
    points: Sequence[Mapping[str, Any]] = (),
    crossed: bool = True,
) -> Sweep:
    """Draw the results of settings whose runs display the best of their epochs.

    `truths`: of a typical epoch. `epoch_sd`: of the epochs' true accuracies. The truths of the sweep are those of the
    epoch that a new run would select. `crossed`: the scores are those of `crossed_bits`; else of the displayed epoch.
    """
    truths = np.asarray(truths, dtype="float64")
    setting, networks, ends = _networks(random, truths, seeds, sd)
    hard = random.standard_normal(images, dtype="float32") * np.float32(np.sqrt(COMMON))
    scores, chosen = np.empty((2, images, len(setting)), dtype="float32")
    for run in range(len(setting)):
        bits, accuracies = _epoch_bits(random, hard, networks[run], epochs, epoch_sd)
        best = int(bits.mean(axis=1).argmax())
        networks[run], chosen[:, run] = accuracies[best], bits[best]
        scores[:, run] = crossed_bits(bits) if crossed else bits[best]
    gain = _gain(images, epochs, epoch_sd, float(truths.max()))
    values = chosen.mean(axis=0, dtype="float64")
    return Sweep(
        truths + gain, np.split(networks, ends), scores, np.split(values, ends), points, chosen if crossed else None
    )


def crossed_bits(epochs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is stored as crossed, bool (N,): even images at the epoch that is best on the odd ones, and the reverse.

    `epochs`: bool (epochs, N).
    """
    found = np.empty(epochs.shape[1], dtype=bool)
    for half in (0, 1):
        found[half::2] = epochs[epochs[:, 1 - half :: 2].mean(axis=1).argmax(), half::2]
    return found


def _networks(
    random: Random, truths: Floats, seeds: int | Sequence[int], sd: float | Floats
) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    """The setting and the true accuracy of each run, and where the settings end."""
    count = len(truths)
    sizes = [seeds] * count if isinstance(seeds, int) else list(seeds)
    setting = np.repeat(np.arange(count), sizes)
    own_sd = np.broadcast_to(np.asarray(sd, dtype="float64"), (count,))
    networks = truths[setting] + own_sd[setting] * random.standard_normal(len(setting))
    return setting, np.clip(networks, 1e-6, 1 - 1e-6), np.cumsum(sizes)[:-1]


def _epoch_bits(
    random: Random, hard: NDArray[np.float32], accuracy: float, epochs: int, epoch_sd: float
) -> tuple[NDArray[np.bool_], Floats]:
    """Whether each epoch of a run classifies each image correctly, (epochs, N), and the epochs' true accuracies."""
    accuracies = np.clip(accuracy + epoch_sd * random.standard_normal(epochs), 1e-6, 1 - 1e-6)
    of_run = hard + random.standard_normal(len(hard), dtype="float32") * np.float32(np.sqrt(OF_RUN))
    own = random.standard_normal((epochs, len(hard)), dtype="float32") * np.float32(np.sqrt(1 - COMMON - OF_RUN))
    bits: NDArray[np.bool_] = own < special.ndtri(accuracies)[:, None].astype("float32") - of_run
    return bits, accuracies


@functools.cache
def _gain(images: int, epochs: int, epoch_sd: float, accuracy: float) -> float:
    """By how much the selected epoch of a run is truly better than a typical one, from many runs."""
    if epoch_sd == 0:
        return 0.0
    random, gains = np.random.default_rng(0), []
    for _ in range(1000):
        hard = random.standard_normal(images, dtype="float32") * np.float32(np.sqrt(COMMON))
        bits, accuracies = _epoch_bits(random, hard, accuracy, epochs, epoch_sd)
        gains.append(accuracies[int(bits.mean(axis=1).argmax())] - accuracy)
    return float(np.mean(gains))
