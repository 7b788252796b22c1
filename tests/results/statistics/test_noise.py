from __future__ import annotations

import numpy as np
import pytest

from relay.results.statistics.noise import noise_of
from tests.benchmarks.simulation import grid_of, sweep_of


def test_the_covariance_by_images_is_that_of_the_means() -> None:
    sweep = sweep_of(np.random.default_rng(0), [0.5, 0.6, 0.7], 400)
    assert sweep.correct is not None
    noise = sweep.noise()
    expected = np.cov(sweep.correct, rowvar=False) / 400 + np.eye(3) * 0.5 / 400**2
    assert noise.sample(np.eye(3))[0] == pytest.approx(expected, rel=1e-4)
    drawn = noise.sample(np.eye(3), 40_000)[1]
    assert np.cov(drawn, rowvar=False) == pytest.approx(expected, rel=0.05)
    difference = np.array([[1.0, -1.0, 0.0]])
    paired = float((sweep.correct[:, 0] - sweep.correct[:, 1]).var(ddof=1)) / 400 + 1.0 / 400**2
    assert float(noise.sample(difference)[0][0, 0]) == pytest.approx(paired, rel=1e-4)


@pytest.mark.parametrize(("seeds", "points"), [(4, grid_of(2, 2, 2)), (1, grid_of(2, 3, 4))])
def test_the_seed_noise_is_what_the_images_do_not_explain(seeds: int, points: list[dict[str, int]]) -> None:
    """From repetitions as well as from what the model of the grid leaves, with and without noise of the images."""
    random, found, on_these_images = np.random.default_rng(1), [], []
    for _ in range(60):
        sweep = sweep_of(random, [0.5] * len(points), 1000, seeds=seeds, sd=0.02, points=points)
        spread = sweep.noise().spread
        found.append(spread.variance - spread.of_images)
        on_these_images.append(spread.variance)
    assert np.mean(found) == pytest.approx(0.02**2, rel=0.12)
    # A run's own luck with 1,000 images, of which 40 % is no common difficulty, is part of its variance.
    assert np.mean(on_these_images) > 1.15 * 0.02**2


def test_the_part_of_the_images_is_that_of_the_projected_covariance() -> None:
    sweep = sweep_of(np.random.default_rng(2), [0.5] * 12, 300, points=grid_of(2, 2, 3))
    assert sweep.correct is not None
    basis = sweep.design().basis
    projection = np.eye(12) - basis @ basis.T
    by_images = np.cov(sweep.correct, rowvar=False) / 300
    degrees = 12 - basis.shape[1]
    assert sweep.noise().spread.of_images == pytest.approx(float(np.trace(projection @ by_images)) / degrees, rel=1e-4)


def test_without_repetitions_and_without_a_grid_there_is_no_seed_noise() -> None:
    noise = noise_of([[0.5], [0.6]], [], None)
    assert (noise.spread.degrees, noise.has_images, noise.spread.of_seeds) == (0, False, 0)


def test_a_noisier_better_half_gives_the_larger_spread() -> None:
    random, points = np.random.default_rng(3), grid_of(2, 2, 3, 2, 2)
    good = np.array([point["c"] == 2 for point in points])
    ratios = []
    for _ in range(40):
        truths, sd = np.where(good, 0.6, 0.3), np.where(good, 0.022, 0.005)
        noise = sweep_of(random, truths, 0, sd=sd, points=points).noise()
        ratios.append(noise.better.variance / noise.spread.variance)
        assert noise.better.variance >= noise.spread.variance
    assert np.mean(ratios) > 1.3


def test_draws_are_the_same_each_time_and_have_the_tails_of_few_degrees_of_freedom() -> None:
    noise = noise_of([[0.5, 0.52], [0.6, 0.58]], [], None)
    contrast = np.array([[1.0, -1.0]])
    covariance, drawn = noise.sample(contrast, 50_000)
    assert np.array_equal(drawn, noise.sample(contrast, 50_000)[1])
    # 4.3027: Student's quantile with two degrees of freedom.
    error = float(np.sqrt(covariance[0, 0]))
    assert np.quantile(np.abs(drawn), 0.95) == pytest.approx(4.3027 * error, rel=0.03)
