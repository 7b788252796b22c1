from __future__ import annotations

import math
from typing import Any

import pytest

from src.results.ranking import Ranking
from src.results.seeds import pooled_sd, seed_rows, settings_of
from src.results.table import Table


def row(index: int, lr: float, seed: int, accuracy: float | None) -> dict[str, Any]:
    state = "running" if accuracy is None else "done"
    return {"index": index, "run": f"k={index}", "state": state, "lr": lr, "seed": seed, "val/accuracy": accuracy}


ROWS = [row(0, 0.1, 1, 0.5), row(1, 0.1, 2, 0.7), row(2, 0.2, 1, 0.65), row(3, 0.2, 2, 0.63), row(4, 0.3, 1, None)]


def test_rows_that_differ_only_in_the_seed_are_one_setting_and_ranked_by_their_mean() -> None:
    table = Table("t", ROWS, ["lr", "seed"], Ranking())
    found = seed_rows(table)
    assert [(each["lr"], each["n"]) for each in found] == [(0.2, 2), (0.1, 2)]
    assert found[1]["mean"] == pytest.approx(0.6)
    assert found[1]["sd"] == pytest.approx(math.sqrt(0.02))
    # The quantile of Student's distribution with one degree of freedom is 12.7062.
    assert found[1]["high"] - found[1]["mean"] == pytest.approx(12.7062 * math.sqrt(0.02 / 2), rel=1e-4)
    assert [each["index"] for each in table.ranked] == [2, 3, 1, 0, 4]
    best = table.best()
    assert best is not None
    assert best["index"] == 2, "a lucky seed of a worse setting is not the best"


def test_one_seed_has_a_mean_and_no_spread() -> None:
    found = seed_rows(Table("t", [ROWS[0], ROWS[2], ROWS[3]], ["lr", "seed"], Ranking()))
    assert [(each["n"], each["sd"] is None, each["low"]) for each in found][1] == (1, True, None)


def test_without_the_seed_as_an_axis_there_are_no_repetitions() -> None:
    table = Table("t", ROWS[:1] + ROWS[2:3], ["lr"], Ranking())
    assert seed_rows(table) == []
    assert len(settings_of(table)) == 2
    assert pooled_sd(settings_of(table)) == (0.0, 0)


def test_the_spread_between_seeds_is_pooled_over_the_settings() -> None:
    spread, degrees = pooled_sd(settings_of(Table("t", ROWS, ["lr", "seed"], Ranking())))
    assert degrees == 2
    assert spread == pytest.approx(math.sqrt((0.02 + 0.0002) / 2))
