from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relay.results.answer import answer_of
from relay.results.output import write_effects
from relay.results.statements import effect_statements, english, method_statements
from relay.results.statistics.effects import Effects, effects_of
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Row, Table
from tests.benchmarks.simulation import Sweep, grid_of, sweep_of

SELECT = Ranking()


def grid(values: Sequence[float | None], **axes: Sequence[Any]) -> Table:
    """A table with the product of the axes, in order; None is a cell without a result."""
    rows: list[Row] = []
    for value, point in zip(values, itertools.product(*axes.values()), strict=True):
        state = "running" if value is None else "done"
        cell = dict(zip(axes, point, strict=True))
        rows.append({"index": len(rows), "run": f"k={len(rows)}", "state": state, **cell, "val/accuracy": value})
    return Table("grid", rows, list(axes), SELECT)


def found(table: Table) -> Effects:
    effects = answer_of(table, lambda _: None).effects
    assert effects is not None
    return effects


def simulated(sweep: Sweep) -> Effects:
    effects = effects_of(sweep.design(), sweep.noise(), SELECT)
    assert effects is not None
    return effects


def said(effects: Effects, select: Ranking = SELECT) -> dict[str, str]:
    """The sentence of each axis."""
    return {line.partition(":")[0]: line for line in effect_statements(effects, select, english())}


def shares(effects: Effects) -> dict[str, float | None]:
    return {term.name: term.share for term in effects.terms}


def p_values(effects: Effects) -> dict[str, float | None]:
    return {term.name: term.p_value for term in effects.terms}


def test_the_shares_of_a_complete_grid_are_exact_and_add_up() -> None:
    # By hand: the means are 0.2 and 0.4 for lr, 0.25 and 0.35 for wd; the interaction is +-0.05.
    effects = found(grid([0.2, 0.2, 0.3, 0.5], lr=[1, 2], wd=[0, 1]))
    total = 4 * (0.1**2 + 0.05**2 + 0.05**2)
    assert effects.complete
    assert shares(effects) == {
        "lr": pytest.approx(4 * 0.1**2 / total),
        "wd": pytest.approx(4 * 0.05**2 / total),
        "lr x wd": pytest.approx(4 * 0.05**2 / total),
    }
    assert [(level.value, level.n, level.mean) for level in effects.levels["lr"]] == [
        (1, 2, pytest.approx(0.2)),
        (2, 2, pytest.approx(0.4)),
    ]


def test_the_tests_are_those_of_the_classical_analysis_of_variance() -> None:
    """Of a complete grid, from the sums of squares of its means."""
    values = np.random.default_rng(0).random((3, 2, 2, 2))
    effects = found(grid(values.ravel().tolist(), a=[1, 2, 3], b=["x", "y"], c=[1, 2], d=[0, 1]))
    centred = values - values.mean()
    mains = [float((centred.mean(axis=tuple({0, 1, 2, 3} - {n})) ** 2).sum()) * 24 / values.shape[n] for n in range(4)]
    pairs = []
    for one, other in itertools.combinations(range(4), 2):
        together = centred.mean(axis=tuple({0, 1, 2, 3} - {one, other}))
        rest = together - together.mean(axis=1, keepdims=True) - together.mean(axis=0, keepdims=True)
        pairs.append(float((rest**2).sum()) * 24 / rest.size)
    total = float((centred**2).sum())
    assert [term.share for term in effects.terms] == pytest.approx([square / total for square in (*mains, *pairs)])
    from scipy import stats

    degrees = [term.degrees for term in effects.terms]
    assert degrees == [2, 1, 1, 1, 2, 2, 2, 1, 1, 1]
    left = (total - sum(mains) - sum(pairs)) / (23 - sum(degrees))
    expected = [stats.f.sf(s / d / left, d, 23 - sum(degrees)) for s, d in zip((*mains, *pairs), degrees, strict=True)]
    assert [term.p_value for term in effects.terms] == pytest.approx(expected)


def test_too_few_runs_have_shares_and_means_but_no_tests() -> None:
    effects = found(grid([0.1, 0.3, 0.2], lr=[1, 2, 3]))
    assert (effects.noise, effects.lsd) == (None, None)
    assert shares(effects) == {"lr": pytest.approx(1.0)}
    assert p_values(effects) == {"lr": None}
    assert method_statements(effects, SELECT, english())[-1].startswith("There are too few runs to estimate the noise")
    assert "too few runs to say whether this is more than noise" in said(effects)["lr"]


def test_losing_a_run_never_makes_a_statement_stronger() -> None:
    """Eight cells gave p = 0.074 for lr, and 0.027 without one of them."""
    values: list[float | None] = [0.40, 0.42, 0.41, 0.44, 0.46, 0.47, 0.43, 0.50]
    axes = {"lr": [1, 2], "wd": [0, 1], "bs": [8, 16]}
    assert p_values(found(grid(values, **axes)))["lr"] is not None
    for lost in range(8):
        fewer = found(grid([None if n == lost else value for n, value in enumerate(values)], **axes))
        assert set(p_values(fewer).values()) == {None}
        assert "7 runs; 8 settings were planned" in method_statements(fewer, SELECT, english())[0]


def test_repetitions_give_the_noise() -> None:
    values = [0.50, 0.52, 0.54, 0.60, 0.62, 0.64]
    answer = answer_of(grid(values, lr=[1, 2], seed=[1, 2, 3]), lambda _: None)
    effects, best_set = answer.effects, answer.best_set
    assert effects is not None
    assert best_set is not None
    assert (best_set.noise_source, effects.degrees, effects.repetitions) == ("seeds", 4, 3)
    assert effects.noise == pytest.approx(0.02)
    # F(1, 4) = 3 x 0.1 ** 2 / 2 / 0.02 ** 2 = 37.5; sqrt(37.5) is a Student quantile.
    from scipy import stats

    assert p_values(effects) == {"lr": pytest.approx(2 * stats.t.sf(math.sqrt(37.5), 4))}


def test_an_incomplete_grid_is_adjusted_for_the_other_axes() -> None:
    """Only bad rates have both weight decays, so the plain means would blame the weight decay."""
    values: list[float | None] = [0.1, 0.1, 0.2, 0.2, 0.9, None]
    effects = found(grid(values, lr=[1, 2, 3], wd=[0, 1]))
    assert not effects.complete
    assert [level.mean for level in effects.levels["wd"]] == pytest.approx([0.4, 0.4])
    assert shares(effects)["wd"] == pytest.approx(0, abs=1e-9)
    assert "least squares" in method_statements(effects, SELECT, english())[0]


def test_what_cannot_be_told_apart_is_empty() -> None:
    values: list[float | None] = [0.1, None, None, 0.2]
    effects = found(grid(values, lr=[1, 2], wd=[0, 1]))
    assert shares(effects) == {"lr": None, "wd": None, "lr x wd": None}
    assert said(effects)["lr"] == "lr: cannot be told apart from the other axes in these runs."


def test_no_axis_that_varies_has_no_effects() -> None:
    assert answer_of(grid([0.1, 0.2], seed=[1, 2]), lambda _: None).effects is None
    assert answer_of(grid([0.1, None], lr=[1, 2]), lambda _: None).effects is None


def test_equal_results_are_no_effect() -> None:
    effects = found(grid([0.5] * 8, lr=[1, 2], wd=[0, 1], bs=[1, 2]))
    assert set(shares(effects).values()) == {0.0}
    assert not any(term.is_clear for term in effects.terms)


@pytest.mark.parametrize(
    ("images", "sd", "luck"), [(0, 0.01, 0.0), (600, 0.0, 0.15)], ids=["no images", "luck that levels share"]
)
def test_noise_alone_is_called_an_effect_in_five_percent_of_the_grids(images: int, sd: float, luck: float) -> None:
    """Uncorrected, and without the luck of the images, 22 to 50 % of the grids had an axis that was best."""
    random, points, repetitions, wrong = np.random.default_rng(0), grid_of(2, 2, 2, 2), 150, [0, 0]
    for _ in range(repetitions):
        shared = np.zeros((images, 16))
        for axis in "abcd" if luck else "":
            shared += luck * random.standard_normal((images, 2))[:, [point[axis] for point in points]]
        own = shared if images else None
        effects = simulated(sweep_of(random, [0.4] * 16, images, sd=sd, points=points, luck=own))
        for kind in (1, 2):
            wrong[kind - 1] += any(term.is_clear for term in effects.terms if len(term.axes) == kind)
    # 5 % of 150 are 7.5; more than 14 have a probability of 1 %.
    assert max(wrong) <= 14


def test_an_axis_beside_an_interaction_of_others_in_an_incomplete_grid_has_no_effect() -> None:
    """A main effect that is compared with main effects alone is wrong in 26 to 28 % of the cases."""
    random, points, wrong = np.random.default_rng(1), grid_of(2, 3, 3, 2), 0
    truths = np.array([0.4 + 0.03 * (point["b"] == 1) * (point["c"] == 2) for point in points])
    for _ in range(200):
        kept = sorted(random.permutation(36)[:29].tolist())
        sweep = sweep_of(random, truths[kept], 0, sd=0.005, points=[points[n] for n in kept])
        p_value = simulated(sweep).terms[0].p_value
        wrong += p_value is not None and p_value < 0.05
    # 5 % of 200 are 10; more than 18 have a probability of 1 %.
    assert wrong <= 18


def test_levels_are_groups_and_not_a_winner() -> None:
    random, alone = np.random.default_rng(2), 0
    points = grid_of(3, 2, 2, 2)
    truths = np.array([0.4 if point["a"] else 0.3 for point in points])
    for _ in range(100):
        levels = simulated(sweep_of(random, truths, 0, sd=0.01, points=points)).levels["a"]
        assert levels[0].worse_than is not None
        alone += bool(levels[1].worse_than or levels[2].worse_than)
        assert levels[0].worse_than == {1, 2}
    assert alone <= 8, "two equal good values: one of them is better with 1.8 %"


def test_the_sentences_name_the_groups_of_levels() -> None:
    random = np.random.default_rng(0)
    base = [0.1 * (lr > 0) + (0.2 if lr == 2 and wd else 0) for lr in (0, 1, 2) for wd in (0, 1) for _ in range(4)]
    values = [value + 0.001 * float(random.normal()) for value in base]
    table = grid(values, lr=[1e-4, 1e-3, 1e-2], wd=[0, 1], bs=[8, 16, 32, 64])
    lines = said(found(table))
    assert lines["lr"].startswith(
        "lr: 0.01 is better than 0.001 and 0.0001; how much depends on wd (adjusted p < 0.001 on"
    )
    assert lines["wd"].startswith("wd: 1 is better than 0; how much depends on lr (adjusted p < 0.001 on this data, ")
    assert lines["bs"].startswith("bs: no difference between its values can be shown (adjusted p = ")
    lowest = said(effects_of_min(table), Ranking("val/accuracy", "min"))
    assert lowest["lr"].startswith("lr: 0.0001 is better than 0.001 and 0.01")
    equal = [0.1 * (lr > 0) + 0.001 * float(random.normal()) for lr in (0, 1, 2) for _ in range(8)]
    lines = said(found(grid(equal, lr=[1e-4, 1e-3, 2e-3], wd=[0, 1], bs=[8, 16, 32, 64])))
    assert "cannot be told apart; both are better than 0.0001" in lines["lr"]


def effects_of_min(table: Table) -> Effects:
    return found(Table(table.name, table.rows, table.axes, Ranking("val/accuracy", "min")))


def test_an_axis_with_an_interaction_has_no_average_in_an_incomplete_grid() -> None:
    values: list[float | None] = [
        0.4 + 0.1 * (lr == wd) + 0.001 * float(noise)
        for (lr, wd, _), noise in zip(
            itertools.product((0, 1), (0, 1), range(8)), np.random.default_rng(1).standard_normal(32), strict=True
        )
    ]
    complete = said(found(grid(values, lr=[1, 2], wd=[0, 1], bs=[*"abcdefgh"])))
    assert "no effect on average can be shown, but one that depends on wd" in complete["lr"]
    values[0] = None
    incomplete = said(found(grid(values, lr=[1, 2], wd=[0, 1], bs=[*"abcdefgh"])))
    assert incomplete["lr"].startswith("lr: its effect depends on wd (")


def test_intervals_of_shares_stay_between_0_and_1() -> None:
    effects = found(grid([0.98, 0.40, 0.99, 0.97, 0.98, 0.95, 0.99, 0.96], lr=[1, 2], wd=[0, 1], bs=[1, 2]))
    for levels in effects.levels.values():
        for level in levels:
            assert level.interval is not None
            assert 0 <= level.interval[0] < level.mean < level.interval[1] <= 1


def random_search(random: np.random.Generator, count: int) -> list[dict[str, Any]]:
    return [{"lr": 10 ** random.uniform(-5, -1), "wd": 10 ** random.uniform(-6, -2)} for _ in range(count)]


def test_a_random_search_is_a_regression() -> None:
    random = np.random.default_rng(3)
    points = random_search(random, 40)
    rising = np.array([0.3 + 0.03 * math.log10(point["lr"] / 1e-5) for point in points])
    effects = simulated(sweep_of(random, rising, 0, sd=0.01, points=points))
    slope = effects.slopes["lr"]
    assert slope.interval is not None
    assert slope.interval[0] < 0.03 < slope.interval[1]
    line = said(effects)["lr"]
    assert line.startswith("lr: val/accuracy changes by +0.0")
    assert " per factor of ten (adjusted p < 0.001 on this data, " in line
    assert said(effects)["wd"].startswith("wd: no difference between its values can be shown")
    peaked = np.array([0.5 - 0.05 * math.log10(point["lr"] / 1e-3) ** 2 for point in points])
    peak = simulated(sweep_of(random, peaked, 0, sd=0.01, points=points)).slopes["lr"].peak
    assert peak == pytest.approx(1e-3, rel=0.3)


def test_a_random_search_finds_nothing_in_noise() -> None:
    random, wrong = np.random.default_rng(4), 0
    for _ in range(200):
        effects = simulated(sweep_of(random, [0.4] * 20, 0, sd=0.01, points=random_search(random, 20)))
        wrong += any(term.is_clear for term in effects.terms)
    assert wrong <= 18, "5 % of 200 are 10; more than 18 have a probability of 1 %"


def test_the_files_hold_every_term_and_level_and_are_the_same_every_time(tmp_path: Path) -> None:
    effects = found(grid([0.2, 0.2, 0.3, 0.5], lr=[1, 2], wd=[0, 1]))
    files = write_effects(effects, SELECT, tmp_path)
    before = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in write_effects(effects, SELECT, tmp_path)] == before
    lines = (tmp_path / "effects.csv").read_text().splitlines()
    assert lines[0] == "term,share,p_value,adjusted_p_value,degrees_of_freedom"
    assert [line.split(",")[0] for line in lines[1:]] == ["lr", "wd", "lr x wd"]
    text = (tmp_path / "effects.md").read_text()
    assert "## lr\n" in text
    assert "## wd\n" in text
    assert "- lr: 2 is best on average" in text
