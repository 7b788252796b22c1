from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from src.results.effects_text import method, verdicts, write_effects

from src.results.answer import answer_of
from src.results.effects import Effects, effects_of
from src.results.intervals import selection_quantile
from src.results.ranking import Ranking
from src.results.table import Row, Table


def grid(values: Sequence[float | None], **axes: Sequence[Any]) -> Table:
    """A table with the product of the axes, in order; None is a cell without a result."""
    rows: list[Row] = []
    for value, point in zip(values, itertools.product(*axes.values()), strict=True):
        state = "running" if value is None else "done"
        cell = dict(zip(axes, point, strict=True))
        rows.append({"index": len(rows), "run": f"k={len(rows)}", "state": state, **cell, "val/accuracy": value})
    return Table("grid", rows, list(axes), Ranking())


def found(table: Table) -> Effects:
    effects = effects_of(table)
    assert effects is not None
    return effects


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


def test_least_squares_agree_with_the_exact_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    from src.results.effects import _Analysis

    table = grid(np.random.default_rng(0).random(24).tolist(), a=[1, 2, 3], b=["x", "y"], c=[1, 2], d=[0, 1])
    exact = found(table)
    monkeypatch.setattr(_Analysis, "_exact_squares", _Analysis._fitted_squares)
    fitted = found(table)
    for one, other in zip(exact.terms, fitted.terms, strict=True):
        assert (one.axes, one.degrees) == (other.axes, other.degrees)
        assert one.share == pytest.approx(other.share)
        assert one.p_value == pytest.approx(other.p_value)
    assert sum(term.share or 0 for term in exact.terms) < 1


def test_with_one_axis_and_one_seed_nothing_can_be_tested() -> None:
    effects = found(grid([0.1, 0.3, 0.2], lr=[1, 2, 3]))
    assert (effects.noise, effects.lsd, effects.threshold) == (None, None, None)
    assert shares(effects) == {"lr": pytest.approx(1.0)}
    assert p_values(effects) == {"lr": None}
    assert "too few runs to estimate the noise" in method(effects)
    assert "too few runs to say whether this is more than noise" in verdicts(effects, Ranking())[0]


def test_two_axes_without_repetitions_are_tested_against_their_interaction() -> None:
    effects = found(grid([0.10, 0.11, 0.30, 0.31, 0.20, 0.22], lr=[1, 2, 3], wd=[0, 1]))
    assert (effects.noise_source, effects.degrees) == ("the interaction", 2)
    tested = p_values(effects)
    assert tested["lr x wd"] is None
    assert tested["lr"] is not None
    assert tested["lr"] < 0.001


def test_repetitions_give_the_noise() -> None:
    values = [0.50, 0.52, 0.60, 0.62]
    effects = found(grid(values, lr=[1, 2], seed=[1, 2]))
    assert (effects.noise_source, effects.degrees, effects.repetitions) == ("seeds", 2, 2)
    assert effects.noise == pytest.approx(math.sqrt(0.0002))
    # F(1, 2) = 0.01 / 0.0002 = 50, whose p-value for 2 degrees of freedom is 1 - sqrt(50 / 52).
    assert p_values(effects) == {"lr": pytest.approx(1 - math.sqrt(50 / 52))}
    assert "estimated from the seeds" in method(effects)


def test_an_incomplete_grid_is_adjusted_for_the_other_axes() -> None:
    """Only bad rates have both weight decays, so the plain means would blame the weight decay."""
    values: list[float | None] = [0.1, 0.1, 0.2, 0.2, 0.9, None]
    effects = found(grid(values, lr=[1, 2, 3], wd=[0, 1]))
    assert not effects.complete
    assert [level.mean for level in effects.levels["wd"]] == pytest.approx([0.4, 0.4])
    assert shares(effects)["wd"] == pytest.approx(0, abs=1e-9)
    assert "least squares" in method(effects)


def test_what_cannot_be_told_apart_is_empty() -> None:
    values: list[float | None] = [0.1, None, None, 0.2]
    effects = found(grid(values, lr=[1, 2], wd=[0, 1]))
    assert shares(effects) == {"lr": None, "wd": None, "lr x wd": None}
    assert verdicts(effects, Ranking())[0] == "lr: cannot be told apart from the other axes in these 2 runs"


def test_no_axis_that_varies_has_no_effects() -> None:
    assert effects_of(grid([0.1, 0.2], seed=[1, 2])) is None
    assert effects_of(grid([0.1, None], lr=[1, 2])) is None


def test_equal_results_are_no_effect() -> None:
    effects = found(grid([0.5] * 8, lr=[1, 2], wd=[0, 1], bs=[1, 2]))
    assert set(shares(effects).values()) == {0.0}


def test_levels_are_numbers_in_order_then_texts_and_empty_values() -> None:
    effects = found(grid([0.1, 0.2, 0.3, 0.4], size=["64-64", 10, None, 2]))
    assert [level.value for level in effects.levels["size"]] == [2, 10, "64-64", None]


def test_noise_alone_is_called_an_effect_in_five_percent_of_the_cases() -> None:
    random, tested, significant = np.random.default_rng(0), 0, 0
    for _ in range(100):
        effects = found(grid(random.normal(size=24).tolist(), a=[1, 2, 3], b=[1, 2], c=[1, 2], d=[1, 2]))
        values = [value for value in p_values(effects).values() if value is not None]
        tested, significant = tested + len(values), significant + sum(value < 0.05 for value in values)
    assert tested == 1000
    assert 0.03 < significant / tested < 0.07


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 4, 4)])
def test_the_truly_best_setting_is_within_the_threshold(shape: tuple[int, ...]) -> None:
    random, kept = np.random.default_rng(1), 0
    axes = {f"a{number}": list(range(size)) for number, size in enumerate(shape)}
    for _ in range(200):
        table = grid((0.5 + 0.01 * random.normal(size=math.prod(shape))).tolist(), **axes)
        answer = answer_of(table, lambda _: None)
        assert answer.best_set is not None
        kept += "k=0" in answer.best_set.names
    assert kept >= 184, "95 % of 200 are 190, fewer than 184 have a probability of 3 %"


def test_the_quantile_of_two_settings_is_that_of_students_distribution() -> None:
    from scipy import stats

    assert selection_quantile(2, 10) == pytest.approx(math.sqrt(2) * stats.t.ppf(0.95, 10), rel=0.01)
    assert selection_quantile(48, 27) > selection_quantile(8, 27) > selection_quantile(8, 1000)


def test_the_verdicts_are_sentences_and_know_the_direction() -> None:
    random = np.random.default_rng(0)
    base = [0.1 * lr + (0.2 if lr == 2 and wd else 0) for lr in (0, 1, 2) for wd in (0, 1) for _ in range(4)]
    table = grid(
        [value + 0.001 * float(random.normal()) for value in base], lr=[1e-4, 1e-3, 1e-2], wd=[0, 1], bs=[8, 16, 32, 64]
    )
    lr, wd, bs = verdicts(found(table), Ranking())
    assert lr.startswith("lr: 0.01 is best on average, by 0.2998 against 0.0001, the worst (p < 0.001, ")
    assert "; how much depends on wd" in lr
    assert wd.startswith("wd: 1 is best on average, by 0.06")
    assert "against 0 (p" in wd
    assert bs.startswith("bs: no effect that these 24 runs can show (p = ")
    lowest = verdicts(found(table), Ranking("val/accuracy", "min"))
    assert lowest[0].startswith("lr: 0.0001 is best on average")


def test_the_files_hold_every_term_and_level_and_are_the_same_every_time(tmp_path: Path) -> None:
    effects = found(grid([0.2, 0.2, 0.3, 0.5], lr=[1, 2], wd=[0, 1]))
    files = write_effects(effects, Ranking(), tmp_path)
    before = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in write_effects(effects, Ranking(), tmp_path)] == before
    lines = (tmp_path / "effects.csv").read_text().splitlines()
    assert lines[0].startswith("term,share,p_value")
    assert [line.split(",")[0] for line in lines[1:]] == ["lr", "wd", "lr x wd"]
    text = (tmp_path / "effects.md").read_text()
    assert "## lr\n" in text
    assert "## wd\n" in text
    assert "the noise between seeds is mixed into it" in text
