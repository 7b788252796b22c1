"""Simulated sweeps, whose truth is known: images, settings, seeds and epochs in a probit model.

An image is classified correctly if a normal variable, partly its difficulty for all networks and partly the luck of one
network, lies below the quantile of the network's true accuracy. Seeds move that accuracy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from src.results.design import Design
from src.results.image_scores import ImageGroup
from src.results.noise import Noise, noise_of

Floats = NDArray[np.float64]
# The part of the variance that is the difficulty of an image for all networks.
COMMON = 0.6


@dataclass(frozen=True)
class Sweep:
    """The results of settings with a known truth.

    `truths`: the accuracy of each setting on all images, mean over all seeds, (K,). `networks`: that of each run, by
    setting. `correct`: (N, runs) float32, setting by setting; None without results per image. `values`: the measured
    accuracy of each run, by setting. `points`: the values of its axes, by setting.
    """

    truths: Floats
    networks: Sequence[Floats]
    correct: NDArray[np.float32] | None
    values: Sequence[Floats]
    points: Sequence[Mapping[str, Any]]

    @property
    def repeated(self) -> bool:
        """Whether a setting has several seeds."""
        return any(len(own) > 1 for own in self.values)

    def design(self, kept: Sequence[int] | None = None) -> Design:
        """The model of the grid, or of the settings with these numbers."""
        points = self.points if kept is None else [self.points[number] for number in kept]
        return Design(points, list(self.points[0]), repeated=self.repeated)

    def noise(self, *, is_grid: bool = True) -> Noise:
        """The noise, as the results of a sweep would have it."""
        basis = self.design().basis if is_grid and self.points else None
        return noise_of([own.tolist() for own in self.values], self.groups(), basis)

    def groups(self) -> list[ImageGroup]:
        """The scores per image."""
        if self.correct is None:
            return []
        sizes = [len(own) for own in self.values]
        parts = np.split(self.correct, np.cumsum(sizes)[:-1], axis=1)
        means = np.stack([part.mean(axis=1) for part in parts], axis=1)
        return [ImageGroup(list(range(len(sizes))), list(range(sum(sizes))), self.correct, means)]


def grid_of(*sizes: int) -> list[dict[str, int]]:
    """The settings of a complete grid of axes a, b, ... with these numbers of values."""
    names = "abcdefgh"[: len(sizes)]
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*map(range, sizes))]


def sweep_of(
    random: np.random.Generator,
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
    count = len(truths)
    sizes = [seeds] * count if isinstance(seeds, int) else list(seeds)
    setting = np.repeat(np.arange(count), sizes)
    own_sd = np.broadcast_to(np.asarray(sd, dtype="float64"), (count,))
    networks = truths[setting] + own_sd[setting] * random.standard_normal(len(setting))
    ends = np.cumsum(sizes)[:-1]
    if not images:
        return Sweep(truths, np.split(networks, ends), None, np.split(networks, ends), points)
    networks = np.clip(networks, 1e-6, 1 - 1e-6)
    latent = random.standard_normal((images, len(setting)), dtype="float32") * np.float32(np.sqrt(1 - common))
    latent += random.standard_normal((images, 1), dtype="float32") * np.float32(np.sqrt(common))
    if luck is not None:
        latent += luck[:, setting].astype("float32")
    correct = (latent < special.ndtri(networks)).astype("float32")
    values = correct.mean(axis=0, dtype="float64")
    return Sweep(truths, np.split(networks, ends), correct, np.split(values, ends), points)
