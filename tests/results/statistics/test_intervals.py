from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from relay.results.statistics.intervals import (
    adjusted_wald,
    agresti_caffo,
    around,
    bootstrap_error,
    difference_of_shares,
    holm,
    student,
    t_interval,
    welch,
    wilson,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (1, 10), (10, 100), (100, 100), (3211, 8000)])
def test_the_interval_of_a_share_is_that_of_scipy(hits: int, n: int) -> None:
    theirs = stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert wilson(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_interval_of_a_share_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    published = {(10, 100): (0.0552, 0.1744), (81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605)}
    for (hits, n), interval in published.items():
        assert wilson(hits, n) == pytest.approx(interval, abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="11 of 10"):
        wilson(11, 10)


def test_the_interval_of_a_difference_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10.
    assert difference_of_shares(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference_of_shares(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert difference_of_shares(10, 10, 0, 20) == pytest.approx((0.6791, 1.0), abs=5e-5)


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    values = [0.71, 0.74, 0.69]
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((theirs.low, theirs.high))
    assert t_interval([0.5]) is None


def test_the_interval_of_paired_shares_is_the_published_one() -> None:
    # Agresti, Categorical Data Analysis, table 10.1: approval of the prime minister, 1600 voters asked twice.
    first = np.repeat([True, True, False, False], [794, 150, 86, 570])
    second = np.repeat([True, False, True, False], [794, 150, 86, 570])
    found = adjusted_wald(first, second)
    assert found.interval() == pytest.approx((0.0213, 0.0586), abs=2e-4)
    # McNemar's statistic is (150 - 86) / sqrt(236), without the half images that are added here.
    assert found.p_value == pytest.approx(2 * stats.norm.sf(64 / np.sqrt(236)), rel=0.1)
    low, high = adjusted_wald(first, first).interval()
    assert low < 0 < high
    assert adjusted_wald(first, first).p_value == 1
    with pytest.raises(ValueError, match="cannot be paired"):
        adjusted_wald(first, second[1:])


def test_the_interval_of_unpaired_shares_is_the_published_one() -> None:
    # Agresti and Caffo 2000: 0 of 10 against 4 of 10 is taken for 1 of 12 against 5 of 12.
    none, four = np.zeros(10, dtype=bool), np.arange(10) < 4
    half = 1.959964 * np.sqrt((11 + 35) / 12**3)
    assert agresti_caffo(none, four).interval() == pytest.approx((-4 / 12 - half, -4 / 12 + half))


def test_a_p_value_is_below_the_level_exactly_where_the_interval_excludes_0() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        first, second = random.normal(0.5, 1, 12), random.exponential(1, 9)
        found, one = welch(first, second), student(first)
        assert found
        assert one
        assert found.p_value == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
        assert one.p_value == pytest.approx(stats.ttest_1samp(first, 0).pvalue)
        for estimate in (found, one, adjusted_wald(first[:9] > 0.5, second > 0.5)):
            low, high = estimate.interval(1 - estimate.p_value * 1.001)
            assert not low <= 0 <= high
            low, high = estimate.interval(1 - estimate.p_value * 0.999)
            assert low <= 0 <= high
    assert welch(first[:1], second) is None


def test_the_bootstrap_error_of_a_mean_is_the_known_one_and_the_same_each_time() -> None:
    values = np.random.default_rng(0).exponential(2.0, 8000)
    error = bootstrap_error(lambda drawn: float(values[drawn].mean()), 8000)
    assert error == pytest.approx(values.std() / np.sqrt(8000), rel=0.05)
    assert bootstrap_error(lambda drawn: float(values[drawn].mean()), 8000) == error


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    shares = [wilson(int(random.binomial(200, 0.3)), 200) for _ in range(1000)]
    assert np.mean([low <= 0.3 <= high for low, high in shares]) == pytest.approx(0.95, abs=0.025)
    pairs = [(int(random.binomial(300, 0.5)), int(random.binomial(80, 0.6))) for _ in range(1000)]
    gaps = [difference_of_shares(a, 300, b, 80) for a, b in pairs]
    assert np.mean([low <= -0.1 <= high for low, high in gaps]) == pytest.approx(0.95, abs=0.025)


def test_the_interval_around_a_share_is_wilsons_with_the_effective_number_of_images() -> None:
    half = 1.959963984540054 * np.sqrt(0.3 * 0.7 / 200)
    assert around(0.3, half, is_share=True) == pytest.approx(wilson(60, 200))
    assert around(0.3, half, is_share=True, n=50) == pytest.approx(wilson(15, 50))
    assert around(0.3, half, is_share=False) == pytest.approx((0.3 - half, 0.3 + half))
    assert around(1.0, 0.0, is_share=True, n=50) == pytest.approx(wilson(50, 50))
    assert around(1.2, 0.5, is_share=True) == (0.5, 1.0)
    for share in np.random.default_rng(0).random(200):
        low, high = around(float(share), 1e-12, is_share=True)
        assert low <= share <= high
    low, high = around(0.66, 0.9, is_share=True)
    assert 0 <= low < 0.66 < high <= 1


def test_holm_is_the_published_correction() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == [
        pytest.approx(p) if p else None for p in (0.03, 0.06, None, 0.06, 0.02)
    ]
    assert holm([0.4, 0.9]) == [0.8, 0.9]
    assert holm([]) == []
