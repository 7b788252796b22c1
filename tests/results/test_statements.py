"""What is said about tables with little in them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relay.results.answer import Answer, answer_of
from relay.results.output import seeds_title, write_answer
from relay.results.statements import digits, english, method_statements
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Row, Table
from tests.results.statistics.test_best_set import predictions_of

SELECT = Ranking()
RATES = [0.1, 0.01, 0.001]


def table_of(values: Sequence[float | None], failed: str = "new", **axes: Sequence[Any]) -> Table:
    """The product of the axes, in order; None is a run with the state `failed`."""
    rows: list[Row] = [
        {"index": n, "run": f"k={n}", "state": "done" if value is not None else failed, "val/accuracy": value}
        | dict(zip(axes, point, strict=True))
        for n, (value, point) in enumerate(zip(values, itertools.product(*axes.values()), strict=True))
    ]
    return Table("grid", rows, list(axes), SELECT)


def answered(values: Sequence[float | None], failed: str = "new", **axes: Sequence[Any]) -> Answer:
    return answer_of(table_of(values, failed, **axes), lambda _: None)


def test_equal_results_have_no_best_value_and_no_edge() -> None:
    said = answered([0.5] * 18, lr=RATES, wd=[0, 1, 2], drop=[0, 1]).sentences()
    assert "All settings have the same val/accuracy." in said
    assert not any("searched" in line or "is best" in line for line in said)
    said = answered([0.5, 0.5], lr=[0.1, 0.2]).sentences()
    assert "lr: no difference between its values can be shown (0.0 % of the variance between settings)." in said


def test_one_finished_cell_is_at_no_edge() -> None:
    assert not any("searched" in line for line in answered([0.5, None, None], lr=RATES).sentences())


def test_what_failed_is_said_where_nothing_or_one_value_is_left() -> None:
    answer = answered([None] * 6, "diverged", lr=RATES, wd=[0, 1])
    assert answer.sentences() == ["None of the 6 runs can be compared: 6 diverged or crashed."]
    answer = answered([0.5, *[None] * 5], "diverged", lr=RATES, wd=[0, 1])
    assert "wd: 1 failed in 3 of 3 runs and is left out." in answer.sentences()


def test_the_files_of_a_sweep_with_one_survivor_are_written(tmp_path: Path) -> None:
    answer = answered([0.5, *[None] * 5], "diverged", lr=RATES, wd=[0, 1])
    write_answer(answer, answer.rows(), tmp_path)
    assert "and is left out" in (tmp_path / "effects.md").read_text()


def test_a_grid_without_a_value_that_failed_is_no_complete_one() -> None:
    values = [0.7 + 0.01 * n if n > 5 else None for n in range(18)]
    effects = answered(values, "diverged", lr=RATES, wd=[0, 1, 2], drop=[0, 1]).effects
    assert effects is not None
    said = method_statements(effects, SELECT, english())[0]
    assert "(12 runs; 18 settings were planned)" in said
    assert "The grid is complete" not in said


def test_without_seeds_the_networks_are_compared_and_not_their_settings() -> None:
    random = np.random.default_rng(0)
    found = {f"k={n}": predictions_of(random.random(400) < share) for n, share in enumerate((0.5, 0.9))}
    values = [float(each.correct.mean()) for each in found.values()]
    said = answer_of(table_of(values, lr=[0.1, 0.2]), found.get).sentences()
    assert "The best network is better than all others (1)." in said


def test_no_accuracy_differs_by_more_than_one() -> None:
    random = np.random.default_rng(2)
    values = [float(value) for value in random.random(18)]
    answer = answered(values, lr=RATES, wd=[0, 1, 2], drop=[0, 1])
    assert answer.best_set is not None
    assert answer.best_set.threshold > 1
    assert any("the noise hides every possible difference" in line for line in answer.sentences())


def test_the_interval_over_seeds_of_one_setting_says_what_it_is_about() -> None:
    random = np.random.default_rng(0)
    found = {f"k={n}": predictions_of(random.random(200) < 0.6) for n in range(4)}
    answer = answer_of(table_of([float(each.correct.mean()) for each in found.values()], seed=range(4)), found.get)
    assert "new data and new seeds" in seeds_title(answer, english())
    assert answer.sentences()[0].startswith("all seeds: val/accuracy 0.5")


def test_repetitions_that_are_all_equal_say_nothing_about_the_noise() -> None:
    answer = answered([0.1 + 0.2, 0.1 + 0.2, 0.4, 0.4, 0.5, 0.5], lr=RATES, seed=[0, 1])
    assert answer.best_set is None
    said = answer.sentences()
    assert any("too few to estimate the noise" in line for line in said)
    assert not any("better than" in line for line in said)


def test_an_empty_value_is_called_null() -> None:
    values = [0.5, 0.5, None, 0.7, 0.71, 0.72, 0.5, 0.51, 0.49]
    said = answered(values, "crashed", drop=[None, 0.1, 0.2], lr=RATES).sentences()
    assert any(line.startswith("drop: null failed in 1 of 3 runs") for line in said)


def test_a_curve_of_eight_learning_rates_is_no_noise() -> None:
    """A straight line through it would leave residuals of 0.1, which are no noise of a run."""
    rates = [10.0 ** (-place / 2) for place in range(8)]
    random = np.random.default_rng(0)
    values = [0.8 - 0.02 * (place - 4) ** 2 + 0.005 * float(random.standard_normal()) for place in range(8)]
    answer = answered(values, lr=rates)
    assert answer.best_set is not None
    assert answer.best_set.noise is not None
    assert answer.best_set.noise < 0.02
    (said,) = (line for line in answer.sentences() if line.startswith("lr: best near 0.0"))
    assert "on a fitted curve; at the middle of its range, val/accuracy changes by" in said
    assert answer.effects is not None
    assert "The means of lr are those of a fitted line or curve." in method_statements(
        answer.effects, SELECT, english()
    )


def test_a_curve_that_is_worst_in_the_middle_is_no_slope() -> None:
    values = [0.6 + 0.02 * (place - 4.5) ** 2 + 0.001 * (-1) ** place for place in range(10)]
    said = answered(values, layers=range(1, 11)).sentences()
    assert any(line.startswith("layers: has an effect, but not along a straight line; at the middle") for line in said)


def test_a_line_without_a_test_is_said_as_such() -> None:
    said = answered([0.5, 0.6, 0.7, 0.71, 0.7], layers=range(1, 6)).sentences()
    assert any(
        line.startswith("layers: val/accuracy changes by +0.0510 per unit along a fitted line; there") for line in said
    )


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0.0000"), (0.51234, "0.5123"), (123.45678, "123.4568"), (3.14159e-5, "3.1e-05")]
)
def test_a_tiny_number_keeps_its_digits(value: float, shown: str) -> None:
    assert digits(value) == shown
    assert math.isclose(float(digits(-value)), -float(shown))
