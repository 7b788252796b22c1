"""Rows of coverage: what to expect of the leading setting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from relay.results.statistics.best_set import contenders_of, winner_of
from tests.benchmarks.coverage_best_set import EIGHT, HALF, SIXTEEN, THROUGH, trained_networks
from tests.benchmarks.coverage_row import Outcome, Random, Row, held
from tests.benchmarks.simulation import SELECT, Sweep, epochs_of, sweep_of

WINNER = "the interval holds the value of the selected setting"
NETWORK = "the interval holds the value of the selected network"
UNCLAIMED = "not claimed: the value is said to be the best that its run has logged"


def expected(sweep: Sweep, *, is_grid: bool = True) -> Outcome:
    """Whether the interval of the setting with the best displayed value holds its truth."""
    noise = sweep.noise(is_grid=is_grid)
    found = contenders_of(noise)
    assert found is not None
    leader = max(found.members, key=lambda number: float(np.mean(sweep.values[number])))
    winner = winner_of(noise, found.members, leader, SELECT)
    assert winner is not None
    return held(winner.interval, winner.expected, float(sweep.truths[leader]))


def through_answer(sweep: Sweep) -> Outcome:
    """The same from the table and the predictions."""
    found = sweep.answer().best_set
    assert found is not None
    assert found.winner is not None
    leader = int(found.names[0][1:].split("-")[0])
    return held(found.winner.interval, found.winner.expected, float(sweep.truths[leader]))


def _setting(situation: str, make: Callable[[Random], Sweep]) -> Row:
    return Row(WINNER, situation, 0.95, lambda random: expected(make(random)))


def _network(situation: str, make: Callable[[Random], Sweep]) -> Row:
    return Row(NETWORK, situation, 0.95, lambda random: expected(make(random), is_grid=False))


def graded(random: Random) -> Sweep:
    """Settings that differ by up to 0.05."""
    return sweep_of(random, np.linspace(0.35, 0.4, 24), 8000, sd=0.005, points=HALF)


ROWS = [
    _network("8 networks, n 200, accuracy 0.99", trained_networks(200, 0.99, 8)),
    _network("6 networks, n 50, accuracy 0.97", trained_networks(50, 0.97, 6)),
    _network("8 networks, n 1000, accuracy 0.4", trained_networks(1000, 0.4, 8)),
    _network("8 networks, best of 10 epochs, n 600", lambda r: epochs_of(r, [0.4] * 8, 600, 10, points=EIGHT)),
    _setting("n 8000, 24 cells, seed sd 0.005", lambda r: sweep_of(r, [0.4] * 24, 8000, sd=0.005, points=HALF)),
    _setting("n 8000, 16 cells, seed sd 0.004", lambda r: sweep_of(r, [0.4] * 16, 8000, sd=0.004, points=SIXTEEN)),
    _setting("n 1000, 8 cells, seed sd 0.007", lambda r: sweep_of(r, [0.4] * 8, 1000, sd=0.007, points=EIGHT)),
    _setting("n 600, 16 cells, seed sd 0.008", lambda r: sweep_of(r, [0.4] * 16, 600, sd=0.008, points=SIXTEEN)),
    _setting("n 8000, 24 cells of different accuracy, seed sd 0.005", graded),
    _setting(
        "n 200, accuracy 0.99, 24 cells, seed sd 0.003",
        lambda r: sweep_of(r, [0.99] * 24, 200, sd=0.003, points=HALF),
    ),
    _setting(
        "3 seeds, n 1000, 8 cells, seed sd 0.01", lambda r: sweep_of(r, [0.5] * 8, 1000, sd=0.01, seeds=3, points=EIGHT)
    ),
    _setting(
        "2 seeds, n 4000, 8 cells, seed sd 0.01", lambda r: sweep_of(r, [0.5] * 8, 4000, sd=0.01, seeds=2, points=EIGHT)
    ),
    _setting(
        "3 seeds, n 200, accuracy 0.99, seed sd 0.003",
        lambda r: sweep_of(r, [0.99] * 8, 200, sd=0.003, seeds=3, points=EIGHT),
    ),
    _setting("best of 10 epochs, n 1000, 8 cells", lambda r: epochs_of(r, [0.4] * 8, 1000, 10, points=EIGHT)),
    _setting("best of 40 epochs, n 1000, 8 cells", lambda r: epochs_of(r, [0.4] * 8, 1000, 40, points=EIGHT)),
    _setting(
        "best of 40 epochs of different accuracy (sd 0.005), n 1000, 8 cells, seed sd 0.005",
        lambda r: epochs_of(r, [0.4] * 8, 1000, 40, sd=0.005, epoch_sd=0.005, points=EIGHT),
    ),
    _setting("best of 40 epochs, n 200, accuracy 0.99", lambda r: epochs_of(r, [0.99] * 8, 200, 40, points=EIGHT)),
    _setting(
        "best of 40 epochs, n 8000, seed sd 0.003", lambda r: epochs_of(r, [0.4] * 8, 8000, 40, sd=0.003, points=EIGHT)
    ),
    _setting(
        "best of 40 epochs, 3 seeds, n 1000, seed sd 0.01",
        lambda r: epochs_of(r, [0.5] * 4, 1000, 40, seeds=3, sd=0.01, points=EIGHT[:4]),
    ),
    Row(
        WINNER,
        "best of 10 epochs, n 600, 8 cells, seed sd 0.005" + THROUGH,
        0.95,
        lambda r: through_answer(epochs_of(r, [0.4] * 8, 600, 10, sd=0.005, points=EIGHT)),
    ),
    Row(
        UNCLAIMED,
        "best of 40 epochs, n 1000, 8 cells, without crossed predictions",
        None,
        lambda r: expected(epochs_of(r, [0.4] * 8, 1000, 40, points=EIGHT, crossed=False)),
    ),
]
