"""Rows of coverage: the intervals of settings over their seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relay.results.statistics.intervals import LEVEL, around
from tests.benchmarks.coverage_best_set import THROUGH
from tests.benchmarks.coverage_row import Outcome, Random, Row, held
from tests.benchmarks.simulation import Sweep, grid_of, sweep_of

SEEDS = "the interval holds the mean of a setting over all seeds, on all images"
HERE = "the interval holds the mean of a setting over all seeds, on these images"
FOUR = grid_of(4)


def first_interval(sweep: Sweep) -> Outcome:
    """Whether the interval of the first setting holds its truth."""
    noise = sweep.noise()
    most = float(noise.images()[0] * noise.seeds[0])
    value, half = float(noise.values[0]), float(noise.half_widths(LEVEL)[0])
    return held(around(value, half, is_share=True, n=most), value, float(sweep.truths[0]))


def through_answer(sweep: Sweep) -> Outcome:
    """The same from the table and the predictions: the row of the setting in seeds.csv."""
    (found,) = (row for row in sweep.answer().seeds if row["a"] == 0)
    return held((found["low"], found["high"]), found["mean"], float(sweep.truths[0]))


def _row(images: int, seeds: int, sd: float, truth: float = 0.5, settings: int = 1) -> Row:
    points = FOUR[:settings]
    own = "own noise" if settings == 1 else f"noise of {settings} settings"
    what = f"n {images}" if images else "no images"
    accuracy = f", accuracy {truth}" if truth > 0.9 else ""

    def simulate(random: Random) -> Outcome:
        return first_interval(sweep_of(random, [truth] * settings, images, seeds=seeds, sd=sd, points=points))

    return Row(SEEDS if images else HERE, f"{seeds} seeds, {own}, {what}{accuracy}, seed sd {sd}", 0.95, simulate)


def _unequal(random: Random) -> Outcome:
    counts: Sequence[int] = [2, 5, 5, 5]
    return first_interval(sweep_of(random, np.linspace(0.5, 0.4, 4), 2000, seeds=counts, sd=0.01, points=FOUR))


ROWS = [
    *(_row(600, seeds, 0.01) for seeds in (2, 3, 5, 8)),
    *(_row(8000, seeds, 0.004) for seeds in (3, 5)),
    *(_row(8000, seeds, 0.01) for seeds in (2, 3, 5)),
    _row(200, 3, 0.003, 0.99),
    _row(200, 5, 0.0, 0.99),
    _row(0, 3, 0.01),
    _row(8000, 3, 0.01, settings=4),
    _row(0, 2, 0.01, settings=4),
    Row(SEEDS, "2 of 2, 5, 5, 5 seeds, noise of 4 settings, n 2000, seed sd 0.01", 0.95, _unequal),
    Row(
        SEEDS,
        "3 seeds, own noise, n 600, seed sd 0.01" + THROUGH,
        0.95,
        lambda r: through_answer(sweep_of(r, [0.5], 600, seeds=3, sd=0.01, points=FOUR[:1])),
    ),
]
