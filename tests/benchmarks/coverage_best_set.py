"""Rows of coverage: which settings may be the best one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from relay.results.statistics.best_set import contenders_of
from tests.benchmarks.coverage_row import Found, Outcome, Random, Row, rows_of
from tests.benchmarks.simulation import Floats, Sweep, epochs_of, grid_of, losses_of, sweep_of

ALL = "every setting that is as good as the best one is marked"
WORSE = "a setting that is as good as the best one is called worse"
UNCLAIMED = "not claimed: the same, read as a statement about settings"
BETTER = "of two equal settings, one is called worse"
FOUND = "power: a setting that is worse by {} is called worse"
THROUGH = ", from the table and the predictions"

Make = Callable[[Random], Sweep]
TWO, EIGHT, SIXTEEN, HALF, FULL = (grid_of(*sizes) for sizes in ((2,), (2, 2, 2), (2,) * 4, (2, 3, 4), (2, 2, 3, 2, 2)))


def kept_best(sweep: Sweep, *, is_grid: bool = True) -> Outcome:
    """Whether all truly best settings are in the set."""
    sweep = sweep.without_collapsed() if is_grid else sweep
    noise = sweep.noise(is_grid=is_grid)
    found = contenders_of(noise)
    assert found is not None
    holds = sweep.best <= set(found.members)
    used = float(noise.values.max() - noise.values[list(sweep.best)].min()) / found.threshold
    # The threshold is that of a typical pair, and of the first step.
    return Outcome(holds, min(used, 1.0) if holds else max(used, 1.001))


def kept_through_answer(sweep: Sweep) -> bool:
    """The same by the column `verdict` of the rows."""
    rows = sweep.answer().rows()
    verdicts = {str(row["run"]): row.get("verdict") for row in rows}
    return all(verdicts[f"s{number}-0"] not in ("worse", "collapsed") for number in sweep.best)


def equal(
    count: int,
    images: int,
    *,
    truth: float = 0.4,
    points: Sequence[Mapping[str, Any]] = (),
    sd: float | Floats = 0.0,
    seeds: int | Sequence[int] = 1,
) -> Make:
    """Settings that are all equally good."""
    return lambda random: sweep_of(random, [truth] * count, images, sd=sd, seeds=seeds, points=points)


def null_grid(random: Random) -> Sequence[Found]:
    """A grid without any effect and without results per image."""
    found = kept_best(sweep_of(random, [0.4] * 48, 0, sd=0.01, points=FULL))
    return found, not found.said


def level_luck(
    random: Random, images: int, points: Sequence[Mapping[str, Any]], sd: float, size: float = 0.25
) -> Sweep:
    """Equal settings whose levels share some luck with the images, as networks of one architecture do.

    `size`: the standard deviation of a level's luck; that of an image's difficulty is 0.77.
    """
    luck = np.zeros((images, len(points)), dtype="float32")
    for axis in points[0]:
        codes = np.array([point[axis] for point in points])
        luck += (random.standard_normal((images, codes.max() + 1)) * size)[:, codes]
    return sweep_of(random, [0.4] * len(points), images, sd=sd, points=points, luck=luck)


def noisy_half(random: Random, images: int, points: Sequence[Mapping[str, Any]], seeds: int = 1) -> Sweep:
    """The better half of the settings has 4.4 times the noise of the other half."""
    good = np.array([point["a"] == 1 for point in points])
    truths, sd = np.where(good, 0.5, 0.4), np.where(good, 0.022, 0.005)
    return sweep_of(random, truths, images, sd=sd, seeds=seeds, points=points)


def collapsed_cell(random: Random) -> Sweep:
    """One of 48 settings is lower by 0.3."""
    truths = np.full(48, 0.4)
    truths[random.integers(48)] -= 0.3
    return sweep_of(random, truths, 2000, sd=0.005, points=FULL)


def interaction(random: Random, sd: float = 0.005) -> Sweep:
    """Three axes interact by one standard deviation of the seeds, which the model of pairs does not have."""
    signs = np.array([(-1) ** (point["a"] + point["b"] + point["d"]) for point in FULL])
    return sweep_of(random, 0.4 + sd * signs, 2000, sd=sd, points=FULL)


def trained_networks(images: int, truth: float, count: int, sd: float = 0.0) -> Make:
    """Single networks, not combined in a grid: the truth is that of each network."""

    def make(random: Random) -> Sweep:
        from dataclasses import replace

        made = sweep_of(random, [truth] * count, images, sd=sd)
        return replace(made, truths=np.concatenate(made.networks))

    return make


def power(random: Random, make: Callable[[Random, Sequence[float]], Sweep], by: float) -> bool:
    """Whether the worst setting is called worse."""
    points = HALF
    truths = [0.4 - by * (number == 7) for number in range(len(points))]
    found = contenders_of(make(random, truths).noise())
    assert found is not None
    return 7 not in found.members


def _grid(situation: str, make: Make) -> Row:
    return Row(ALL, situation, 0.95, lambda random: kept_best(make(random)))


def _two(situation: str, make: Make) -> Row:
    return Row(BETTER, situation, 0.05, lambda random: not kept_best(make(random)).said)


def _networks(situation: str, make: Make) -> Row:
    return Row(ALL, situation, 0.95, lambda random: kept_best(make(random), is_grid=False))


ROWS = [
    *rows_of("no results per image, 48 cells", {ALL: 0.95, WORSE: 0.05}, null_grid),
    _grid("no results per image, 16 cells", equal(16, 0, sd=0.01, points=SIXTEEN)),
    _grid("no results per image, 8 cells", equal(8, 0, sd=0.01, points=EIGHT)),
    _grid("one seed, n 8000, 16 cells, seed sd 0.002", equal(16, 8000, sd=0.002, points=SIXTEEN)),
    _grid("one seed, n 8000, 16 cells, seed sd 0.004", equal(16, 8000, sd=0.004, points=SIXTEEN)),
    _grid("one seed, n 8000, 24 cells, seed sd 0.005", equal(24, 8000, sd=0.005, points=HALF)),
    _grid("one seed, n 1000, 8 cells, seed sd 0.007", equal(8, 1000, sd=0.007, points=EIGHT)),
    _grid("one seed, n 600, 16 cells, seed sd 0.008", equal(16, 600, sd=0.008, points=SIXTEEN)),
    _grid("one seed, n 2000, 16 cells, seed sd 0.004", equal(16, 2000, sd=0.004, points=SIXTEEN)),
    _grid("one seed, n 1000, 16 cells, seed sd 0.03", equal(16, 1000, sd=0.03, points=SIXTEEN)),
    _grid("no seed noise, n 200, accuracy 0.9, 16 cells", equal(16, 200, truth=0.9, points=SIXTEEN)),
    _grid("no seed noise, n 600, accuracy 0.98, 16 cells", equal(16, 600, truth=0.98, points=SIXTEEN)),
    _grid("no seed noise, n 50, accuracy 0.97, 16 cells", equal(16, 50, truth=0.97, points=SIXTEEN)),
    _grid("n 200, accuracy 0.99, 24 cells, seed sd 0.003", equal(24, 200, truth=0.99, sd=0.003, points=HALF)),
    _grid(
        "48 cells, n 2000, seed sd 0.005, 20 % missing",
        lambda r: sweep_of(r, [0.4] * 48, 2000, sd=0.005, points=FULL).without(0.2, r),
    ),
    _grid(
        "48 cells, n 2000, seed sd 0.005, 40 % missing",
        lambda r: sweep_of(r, [0.4] * 48, 2000, sd=0.005, points=FULL).without(0.4, r),
    ),
    _grid("48 cells, n 2000, seed sd 0.005, levels share luck", lambda r: level_luck(r, 2000, FULL, 0.005)),
    _grid("48 cells, n 2000, seed sd 0.005, one collapsed", collapsed_cell),
    _grid("48 cells, three axes interact", interaction),
    _grid("loss (lognormal), n 2000, 24 cells", lambda r: losses_of(r, [1.0] * 24, 2000, sd=0.01, points=HALF)),
    _grid("loss (lognormal), n 600, 16 cells", lambda r: losses_of(r, [1.0] * 16, 600, sd=0.01, points=SIXTEEN)),
    _grid("noise 4.4 times larger in the good half, 48 cells, no images", lambda r: noisy_half(r, 0, FULL)),
    _grid("noise 4.4 times larger in the good half, 48 cells, n 8000", lambda r: noisy_half(r, 8000, FULL)),
    _grid("the same with 3 seeds, 8 cells, n 8000", lambda r: noisy_half(r, 8000, EIGHT, 3)),
    _grid("the same with 3 seeds, 16 cells, n 8000", lambda r: noisy_half(r, 8000, SIXTEEN, 3)),
    _grid("2 seeds, n 1000, 8 cells, seed sd 0.01", equal(8, 1000, sd=0.01, seeds=2, points=EIGHT)),
    _grid("3 seeds, n 1000, 8 cells, seed sd 0.01", equal(8, 1000, sd=0.01, seeds=3, points=EIGHT)),
    _grid("5 seeds, n 1000, 8 cells, seed sd 0.01", equal(8, 1000, sd=0.01, seeds=5, points=EIGHT)),
    _grid("1, 1, 1, 5, 5, 5 seeds, n 1000", equal(6, 1000, sd=0.01, seeds=[1, 1, 1, 5, 5, 5], points=grid_of(6))),
    _grid("5, 5, 5, 5, 5, 1 seeds, n 1000", equal(6, 1000, sd=0.01, seeds=[5, 5, 5, 5, 5, 1], points=grid_of(6))),
    _grid("5, 5, 5, 5, 5, 1 seeds, no images", equal(6, 0, sd=0.01, seeds=[5, 5, 5, 5, 5, 1], points=grid_of(6))),
    Row(
        ALL,
        "3 seeds, n 600, 8 cells, seed sd 0.01" + THROUGH,
        0.95,
        lambda r: kept_through_answer(sweep_of(r, [0.5] * 8, 600, sd=0.01, seeds=3, points=EIGHT)),
    ),
    _grid("best of 40 epochs, n 600, 16 cells", lambda r: epochs_of(r, [0.4] * 16, 600, 40, points=SIXTEEN)),
    _grid(
        "best of 10 epochs, 3 seeds, n 600, 8 cells, seed sd 0.005",
        lambda r: epochs_of(r, [0.4] * 8, 600, 10, seeds=3, sd=0.005, points=EIGHT),
    ),
    _two("2 seeds, n 1000, seed sd 0.03", equal(2, 1000, sd=0.03, seeds=2, points=TWO)),
    _two("2 seeds, n 1000, seed sd 0.01", equal(2, 1000, sd=0.01, seeds=2, points=TWO)),
    _two("3 seeds, n 1000, seed sd 0.01", equal(2, 1000, sd=0.01, seeds=3, points=TWO)),
    _two("2 seeds, n 8000, seed sd 0.005", equal(2, 8000, sd=0.005, seeds=2, points=TWO)),
    _two("3 seeds, n 8000, seed sd 0.005", equal(2, 8000, sd=0.005, seeds=3, points=TWO)),
    _two("5 seeds, n 8000, seed sd 0.005", equal(2, 8000, sd=0.005, seeds=5, points=TWO)),
    _two("3 seeds, n 200, accuracy 0.99, seed sd 0.003", equal(2, 200, truth=0.99, sd=0.003, seeds=3, points=TWO)),
    _networks("these 8 networks, n 200, accuracy 0.9", trained_networks(200, 0.9, 8)),
    _networks("these 8 networks, n 600, accuracy 0.98", trained_networks(600, 0.98, 8)),
    _networks("these 6 networks, n 50, accuracy 0.97", trained_networks(50, 0.97, 6)),
    _networks("these 48 networks, n 200, accuracy 0.95", trained_networks(200, 0.95, 48)),
    _networks("these 8 networks, n 1000, accuracy 0.4", trained_networks(1000, 0.4, 8)),
    _networks("these 8 networks, best of 40 epochs, n 600", lambda r: epochs_of(r, [0.4] * 8, 600, 40, points=EIGHT)),
    _networks("these 8 networks, best of 10 epochs, n 600", lambda r: epochs_of(r, [0.4] * 8, 600, 10, points=EIGHT)),
    _networks("these 8 networks, n 8000, seed sd 0.005", trained_networks(8000, 0.4, 8, 0.005)),
    Row(
        BETTER.replace("settings", "networks"),
        "n 1000",
        0.05,
        lambda r: not kept_best(trained_networks(1000, 0.4, 2)(r), is_grid=False).said,
    ),
    Row(
        UNCLAIMED,
        "2 single runs without a grid, n 8000, seed sd 0.005: one of two equal settings is called worse",
        None,
        lambda r: not kept_best(sweep_of(r, [0.4] * 2, 8000, sd=0.005), is_grid=False).said,
    ),
    Row(
        UNCLAIMED,
        "8 variants with one seed each, n 8000, seed sd 0.005: every setting as good as the best one is marked",
        None,
        lambda r: kept_best(sweep_of(r, [0.4] * 8, 8000, sd=0.005), is_grid=False),
    ),
    Row(
        FOUND.format("8 seed sd"),
        "24 cells, one seed, n 8000, seed sd 0.005",
        None,
        lambda r: power(r, lambda r, truths: sweep_of(r, truths, 8000, sd=0.005, points=HALF), 0.04),
    ),
    Row(
        FOUND.format("8 seed sd"),
        "24 cells, 3 seeds, n 8000, seed sd 0.005",
        None,
        lambda r: power(r, lambda r, truths: sweep_of(r, truths, 8000, sd=0.005, seeds=3, points=HALF), 0.04),
    ),
]
