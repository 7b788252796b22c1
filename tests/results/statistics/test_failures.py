from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from relay.results.answer import answer_of
from relay.results.statistics.failures import failures_of
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Row, Table
from tests.benchmarks.simulation import grid_of

POINTS = grid_of(2, 2, 3, 2, 2)


def table_of(values: list[float | None], points: list[dict[str, Any]], failed: str = "diverged") -> Table:
    rows: list[Row] = [
        {"index": n, "run": f"k={n}", "state": "done" if value is not None else failed, **point, "val/accuracy": value}
        for n, (value, point) in enumerate(zip(values, points, strict=True))
    ]
    return Table("t", rows, list(points[0]), Ranking())


def noisy(seed: int, **shift: float) -> list[float | None]:
    random = np.random.default_rng(seed)
    return [0.5 + 0.005 * float(random.standard_normal()) + shift.get(f"c{p['c']}", 0.0) for p in POINTS]


@pytest.mark.parametrize("state", ["diverged", "crashed", "out_of_memory"])
def test_a_value_that_fails_half_of_the_time_is_not_best_for_its_survivors(state: str) -> None:
    """The survivors of the failing value are the best runs of all."""
    values = noisy(0, c2=0.05)
    lost = [n for n, point in enumerate(POINTS) if point["c"] == 2][:12]
    for n in lost:
        values[n] = None
    answer = answer_of(table_of(values, POINTS, state), lambda _: None)
    assert answer.effects is not None
    assert [level.value for level in answer.effects.levels["c"]] == [0, 1]
    said = next(line for line in answer.sentences() if line.startswith("c: "))
    assert said.startswith(
        "c: 2 failed in 12 of 16 runs and is left out; no difference between its values can be shown"
    )
    (level,) = answer.effects.failures["c"]
    assert level.p_value < 0.001
    assert not any(
        "failed" in line for line in answer.sentences() if line.startswith(("a: ", "b: ")) and "left out" in line
    )


def test_a_few_failures_are_said_and_nothing_is_left_out() -> None:
    values = noisy(1, c1=0.05)
    values[0] = None
    answer = answer_of(table_of(values, POINTS), lambda _: None)
    assert answer.effects is not None
    assert (answer.effects.cells, answer.effects.planned) == (47, 48)
    said = next(line for line in answer.sentences() if line.startswith("c: "))
    assert said.startswith("c: 0 failed in 1 of 16 runs; 1 is better than ")


@pytest.mark.parametrize("state", ["cancelled", "running", "killed", "node_fail", "new"])
def test_a_run_that_was_lost_says_nothing_about_its_values(state: str) -> None:
    values = noisy(2)
    values[0] = None
    assert failures_of(table_of(values, POINTS, state), ["a", "b", "c", "d", "e"], []) == {}


def test_if_everything_of_one_value_fails_the_other_axes_are_not_blamed() -> None:
    points = grid_of(2, 3)
    values = [0.5, 0.51, 0.52, None, None, None]
    found = failures_of(table_of(values, points), ["a", "b"], [])
    assert [(level.value, level.failed, level.dropped) for level in found["a"]] == [(1, 3, True)]
    assert list(found) == ["a"]
    answer = answer_of(table_of(values, points), lambda _: None)
    assert "a: 1 failed in 3 of 3 runs and is left out." in answer.sentences()


def test_a_cell_that_collapsed_is_named_and_left_out() -> None:
    values = noisy(3, c2=0.05)
    values[7] = 0.2
    answer = answer_of(table_of(values, POINTS), lambda _: None)
    assert answer.best_set is not None
    assert list(answer.best_set.collapsed) == ["k=7"]
    assert answer.best_set.noise is not None
    assert answer.best_set.noise < 0.01, "one collapsed cell must not hide all differences"
    assert {row["run"]: row["verdict"] for row in answer.rows()}["k=7"] == "collapsed"
    assert any("Collapsed and left out" in line and "k=7" in line for line in answer.sentences())
    assert answer.effects is not None
    assert answer.effects.failures["a"][0].failed == 1


def test_a_cell_that_is_too_good_is_named_and_stays() -> None:
    values = noisy(4)
    values[7] = 0.6
    answer = answer_of(table_of(values, POINTS), lambda _: None)
    assert answer.best_set is not None
    assert (list(answer.best_set.collapsed), list(answer.best_set.far)) == ([], ["k=7"])
    assert answer.best_set.names[0] == "k=7"
    assert any(line.startswith("More than four standard deviations") and "k=7" in line for line in answer.sentences())


def test_failures_of_a_dropped_value_are_not_told_again_for_the_other_axes() -> None:
    values = noisy(6)
    for n, point in enumerate(POINTS):
        if point["c"] == 2 or n == 0:
            values[n] = None
    found = failures_of(table_of(values, POINTS), ["a", "b", "c"], [])
    told = {axis: [(level.value, level.failed, level.runs) for level in levels] for axis, levels in found.items()}
    assert told == {"a": [(0, 1, 16)], "b": [(0, 1, 16)], "c": [(0, 1, 16), (2, 16, 16)]}


def test_noise_alone_collapses_in_at_most_one_grid_of_fifty() -> None:
    random, found = np.random.default_rng(5), 0
    for _ in range(100):
        values = [float(value) for value in 0.5 + 0.01 * random.standard_normal(48)]
        answer = answer_of(table_of(list(values), POINTS), lambda _: None)
        assert answer.best_set is not None
        found += bool(answer.best_set.collapsed)
    assert found <= 3


@pytest.mark.parametrize(("value", "collapsed", "far"), [(0.1, [3], []), (0.9, [], [3])])
@pytest.mark.parametrize("seed", range(4))
def test_of_a_pair_of_cells_with_equal_residuals_the_odd_one_is_named(
    seed: int, value: float, collapsed: list[int], far: list[int]
) -> None:
    """With an axis of two values, each cell's residual is that of its partner with the other sign."""
    points = grid_of(3, 4, 2)
    values = [0.7 + 0.001 * each for each in np.random.default_rng(seed).standard_normal(len(points))]
    values[3] = value
    found = answer_of(table_of([float(each) for each in values], points), lambda _: None).best_set
    assert found is not None
    assert list(found.collapsed) == [f"k={n}" for n in collapsed]
    assert list(found.far) == [f"k={n}" for n in far]


def test_a_cell_that_collapsed_is_found_with_four_degrees_of_freedom() -> None:
    """Without it, the noise would be that of the collapse, and nothing could be said about the others."""
    points = grid_of(3, 3, 2)
    values = [0.7 + 0.005 * float(each) for each in np.random.default_rng(0).standard_normal(len(points))]
    values[3] = 0.1
    found = answer_of(table_of([*values], points), lambda _: None).best_set
    assert found is not None
    assert list(found.collapsed) == ["k=3"]
    assert found.noise is not None
    assert found.noise < 0.02
