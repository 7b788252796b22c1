from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from relay.results.answer import answer_of
from relay.results.output import answer_json
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Table, settings_of
from tests.benchmarks.simulation import sweep_of


def row(index: int, lr: float, seed: int, accuracy: float | None) -> dict[str, Any]:
    state = "running" if accuracy is None else "done"
    return {"index": index, "run": f"k={index}", "state": state, "lr": lr, "seed": seed, "val/accuracy": accuracy}


ROWS = [row(0, 0.1, 1, 0.5), row(1, 0.1, 2, 0.7), row(2, 0.2, 1, 0.65), row(3, 0.2, 2, 0.63), row(4, 0.3, 1, None)]


def table_of(rows: list[dict[str, Any]], select: Ranking | None = None) -> Table:
    return Table("t", rows, ["lr", "seed"], select or Ranking())


def test_rows_that_differ_only_in_the_seed_are_one_setting_and_ranked_by_their_mean() -> None:
    table = table_of(ROWS)
    answer = answer_of(table, lambda _: None)
    assert [(each["lr"], each["n"]) for each in answer.seeds] == [(0.2, 2), (0.1, 2)]
    assert answer.seeds[1]["mean"] == pytest.approx(0.6)
    assert answer.seeds[1]["sd"] == pytest.approx(math.sqrt(0.02))
    assert [each["index"] for each in table.ranked] == [2, 3, 1, 0, 4]
    best = answer.best()
    assert best is not None
    assert (best.name, best.mean) == ("k=2", pytest.approx(0.64)), "a lucky seed of a worse setting is not the best"
    said = answer.sentences()[0]
    assert said == "best: lr=0.2  val/accuracy 0.6400, the mean of 2 seeds"
    shown = answer_json(answer, answer.rows())["best"]
    assert shown == {"run": "k=2", "value": pytest.approx(0.64), "seeds": 2, "lr": 0.2}


def test_the_interval_over_seeds_is_students_with_the_pooled_spread() -> None:
    rows = answer_of(table_of(ROWS, Ranking("val/accuracy", "max", is_bounded=False)), lambda _: None).seeds
    # 4.3027: the quantile of Student's distribution with two degrees of freedom.
    half = 4.3027 * math.sqrt((0.02 + 0.0002) / 2 / 2)
    assert [each["high"] - each["mean"] for each in rows] == pytest.approx([half, half], rel=0.02)
    assert [each["mean"] - each["low"] for each in rows] == pytest.approx([half, half], rel=0.02)


def test_the_interval_of_a_share_stays_between_0_and_1() -> None:
    rows = [row(0, 0.1, 1, 0.98), row(1, 0.1, 2, 0.40)]
    (found,) = answer_of(table_of(rows), lambda _: None).seeds
    assert 0 <= found["low"] < found["mean"] < found["high"] <= 1


def test_a_single_seed_beside_others_shares_their_spread_and_alone_it_has_none() -> None:
    several = answer_of(table_of([ROWS[0], ROWS[2], ROWS[3]]), lambda _: None).seeds
    assert [(each["n"], each["sd"] is None, each["low"] is None) for each in several] == [
        (2, False, False),
        (1, True, False),
    ]
    alone = answer_of(table_of([ROWS[0], ROWS[2]]), lambda _: None).seeds
    assert [(each["n"], each["low"]) for each in alone] == [(1, None), (1, None)]


def test_without_the_seed_as_an_axis_there_are_no_repetitions() -> None:
    table = Table("t", ROWS[:1] + ROWS[2:3], ["lr"], Ranking())
    assert list(answer_of(table, lambda _: None).seeds) == []
    assert len(settings_of(table)) == 2


@pytest.mark.parametrize(("seeds", "sd", "images"), [(2, 0.01, 600), (5, 0.01, 600), (3, 0.004, 8000)])
def test_intervals_over_seeds_cover_new_images_and_new_seeds(seeds: int, sd: float, images: int) -> None:
    """Student's interval over the seeds alone covers in 91, 75 and 89 % of the cases."""
    random, hits, repetitions = np.random.default_rng(3), 0, 150
    for _ in range(repetitions):
        sweep = sweep_of(random, [0.5], images, seeds=seeds, sd=sd)
        half = sweep.noise().half_widths(0.95)[0]
        hits += abs(float(np.mean(sweep.values[0])) - 0.5) <= half
    # 95 % of 150 are 142.5; fewer than 136 have a probability of 1 %.
    assert hits >= 136
