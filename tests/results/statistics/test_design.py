from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from relay.results.statistics.design import Design, levels_of, span
from tests.benchmarks.simulation import grid_of


def design(points: list[dict[str, Any]], *, repeated: bool = False) -> Design:
    return Design(points, list(points[0]), repeated=repeated)


def test_a_complete_grid_has_orthogonal_terms() -> None:
    found = design(grid_of(2, 3, 4))
    assert found.is_complete
    assert (found.tested, found.degrees) == ([(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)], 6)
    blocks = [found.contrasts(which) for which in found.tested]
    for number, one in enumerate(blocks):
        assert np.allclose(one.sum(axis=0), 0)
        for other in blocks[number + 1 :]:
            assert np.allclose(one.T @ other, 0)


def test_the_pairs_are_left_out_where_they_leave_too_little_to_estimate_the_noise_from() -> None:
    found = design(grid_of(2, 2, 2))
    assert (found.tested, found.degrees) == ([(0,), (1,), (2,)], 4)
    assert design(grid_of(2, 2, 2), repeated=True).tested == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]


def test_a_main_effect_is_adjusted_for_all_terms_without_the_axis() -> None:
    """Type II: in an incomplete grid, an interaction of two other axes must not look like an effect of the third."""
    points = grid_of(2, 3, 3, 2)
    kept = np.random.default_rng(0).permutation(len(points))[: int(0.8 * len(points))]
    incomplete = design([points[number] for number in kept])
    assert not incomplete.is_complete
    interaction = np.array([(points[n]["b"] == 1) * (points[n]["c"] == 2) * 1.0 for n in kept])
    rows = span(incomplete.contrasts((0,))).T
    assert np.allclose(rows @ interaction, 0, atol=1e-9)
    own = np.array([points[n]["a"] * 1.0 for n in kept])
    assert np.abs(rows @ own).max() > 0.1


def test_numbers_that_nearly_all_differ_are_a_trend_on_the_scale_of_their_spread() -> None:
    random = np.random.default_rng(0)
    points = [
        {"lr": 10 ** random.uniform(-5, -1), "dropout": random.uniform(0.1, 0.5), "opt": "ab"[n % 2]} for n in range(20)
    ]
    found = design(points)
    assert {axis: trend.logarithmic for axis, trend in found.trends.items()} == {"lr": True, "dropout": False}
    assert found.degrees == 20 - 1 - 2 - 2 - 1, "a slope and a curvature of each trend"
    trend = found.trends["lr"]
    assert trend.value(trend.place(3e-4)) == pytest.approx(3e-4)
    assert design(points[:7]).degrees == 7 - 1 - 1 - 1 - 1, "no curvature where too little would be left"
    assert not design(grid_of(5, 3)).trends
    assert not design(points, repeated=True).trends


def test_levels_are_numbers_in_order_then_texts_and_empty_values() -> None:
    assert levels_of(["64-64", 10, None, 2]) == [2, 10, "64-64", None]
