"""The statements about an evaluation and about two networks are right as often as they say; small, seeded simulations.

`tests/benchmarks/coverage_evaluation.py` has the models, and more situations.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.benchmarks.coverage_evaluation import (
    ROWS,
    gap_is_wrong,
    network_bits,
)
from tests.benchmarks.coverage_row import Row
from tests.benchmarks.simulation import crossed_bits

# The others take minutes.
SLOW = ("8000 images", "val 8000, test 2000", "classes", "the true loss", "best of 40 epochs, 600", "confidence 0.9")
FAST = [row for row in ROWS if not any(word in f"{row.claim} {row.situation}" for word in SLOW)]


@pytest.mark.parametrize("row", FAST, ids=lambda row: f"{row.claim}: {row.situation}")
def test_a_claim_comes_true_as_often_as_it_says(row: Row) -> None:
    replications = 250
    # Three standard errors of the nominal rate.
    slack = 3 * np.sqrt(0.05 * 0.95 / replications)
    rate = row.rate(replications)
    assert rate >= 0.95 - slack if row.nominal == 0.95 else rate <= 0.05 + slack


@pytest.mark.parametrize(("claim", "situation"), [("macro F1", "2 classes of 50"), ("loss", "100 images")])
def test_the_interval_of_a_metric_holds_the_true_value(claim: str, situation: str) -> None:
    (row,) = (row for row in ROWS if claim in row.claim and situation in row.situation)
    assert row.rate(60) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 60)


def test_the_simulation_sees_the_choice_of_the_epoch() -> None:
    """Without the crossed predictions, val is too high, and the gap is wrong more often than it says."""
    wrong = Row("", "", 0.05, functools.partial(gap_is_wrong, test=600, val=600, epochs=40, crossed=False))
    assert wrong.rate(300) > 0.13


def test_networks_have_their_accuracy_and_share_the_difficulty_of_the_images() -> None:
    bits = network_bits(np.random.default_rng(0), 4000, [0.5, 0.6, 0.6])
    assert bits.mean(1) == pytest.approx([0.5, 0.6, 0.6], abs=0.04)
    # The latent values correlate with 0.5, and so the classes at the median with 2 / pi * asin(0.5).
    assert np.corrcoef(bits[1], bits[2])[0, 1] == pytest.approx(1 / 3, abs=0.06)


def test_a_crossed_image_does_not_choose_its_epoch() -> None:
    epochs = np.array([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1]], dtype=bool)
    # The first epoch is right on all even images, so the odd images are taken from it, and the reverse.
    assert not crossed_bits(epochs).any()
