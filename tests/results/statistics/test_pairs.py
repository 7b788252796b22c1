"""Two networks: one interval, and one verdict that agrees with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from relay.results.statistics.intervals import CROSSED_VARIANCE, adjusted_wald
from relay.results.statistics.pairs import (
    Difference,
    compare_predictions,
    compare_scores,
    difference_of,
    difference_text,
    verdict_text,
    verdicts,
)
from relay.results.tables.table import read_table
from relay.runs.predictions import Predictions
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.outcomes.variants import compare_variants
from src.requests import compare_request
from tests.outcomes.test_variants import finished
from tests.results.tables.test_table import write_training


def network(right: NDArray[np.bool_], images: str = "images") -> Predictions:
    zeros = np.zeros(len(right), dtype=np.int64)
    return Predictions(zeros, (~right).astype(np.int64), zeros + 0.5, np.where(right, 0.5, 1.5), zeros == 0, images)


def first_of(n: int, hits: int) -> NDArray[np.bool_]:
    return np.arange(n) < hits


def test_scores_that_are_no_hits_are_compared_by_their_mean() -> None:
    random = np.random.default_rng(0)
    first, second = random.random(40), random.random(40)
    paired = compare_scores(first, second, paired=True, is_share=False)
    assert paired
    assert paired.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue)
    other = compare_scores(first, second[:30], paired=False, is_share=False)
    assert other
    assert other.p_value == pytest.approx(stats.ttest_ind(first, second[:30], equal_var=False).pvalue)
    # Two networks with the same shares on these images may differ on others.
    same = compare_scores(first, first, paired=True, is_share=True)
    assert same
    assert same.error == pytest.approx(1 / 40)
    assert compare_scores(first[:1], second[:1], paired=True, is_share=False) is None


def test_a_difference_of_shares_stays_within_minus_1_and_1() -> None:
    found = compare_predictions(network(first_of(4, 4)), network(first_of(4, 0)), "accuracy")
    assert found
    interval = found.interval(0.9999)
    assert interval
    assert interval[1] == 1
    assert found.estimate
    assert found.estimate.interval(0.9999)[1] > 1


def test_crossed_predictions_widen_the_interval() -> None:
    own, theirs = network(first_of(200, 120)), network(first_of(200, 100))
    plain = compare_predictions(own, theirs, "accuracy")
    error = adjusted_wald(own.correct, theirs.correct).error
    assert plain
    assert plain.estimate
    assert plain.estimate.error == pytest.approx(error)
    crossed = replace(own, crossed=network(first_of(200, 110)))
    found = compare_predictions(crossed, replace(theirs, crossed=theirs), "accuracy")
    assert found
    assert found.estimate
    assert (found.value, found.crossed) == (pytest.approx(0.05), True)
    error = adjusted_wald(first_of(200, 110), theirs.correct).error
    assert found.estimate.error == pytest.approx(error * np.sqrt(CROSSED_VARIANCE))
    # Only if both have them: otherwise one side alone would be corrected.
    half = compare_predictions(crossed, theirs, "accuracy")
    assert half == plain


def test_a_loss_of_few_wrong_images_has_no_interval() -> None:
    enough = compare_predictions(network(first_of(50, 40)), network(first_of(50, 30)), "loss")
    few = compare_predictions(network(first_of(50, 41)), network(first_of(50, 30)), "loss")
    assert enough
    assert enough.value == pytest.approx(-0.2)
    assert enough.interval() is not None
    assert few
    assert few.interval() is None
    assert verdicts([few]) == [None]
    assert verdict_text("val/loss", few.value, few, None) == "val/loss -0.2200 (too few wrong predictions, no interval)"
    assert difference_text("val/loss", few.value, None) == "val/loss -0.2200"
    diverged = replace(network(first_of(50, 30)), loss=np.full(50, np.inf))
    assert compare_predictions(diverged, diverged, "loss") is None


def test_every_verdict_agrees_with_its_interval_and_is_corrected_for_their_number() -> None:
    base = first_of(300, 100)
    # Right on so many more images, and wrong on eight that the base has right.
    found = [
        compare_predictions(network(first_of(300, 100 + more) & ~first_of(300, 8)), network(base), "accuracy")
        for more in (8, 14, 20, 80)
    ]
    together = verdicts([*found, None])
    assert together[-1] is None
    alone = [verdicts([each])[0] for each in found]
    assert [each.differs for each in alone if each] == [False, False, True, True]
    assert [each.differs for each in together if each] == [False, False, False, True]
    for corrected, single in zip(together, alone, strict=False):
        assert corrected
        assert single
        assert corrected.differs == (corrected.p_value < 0.05)
        assert corrected.low <= single.low
        assert corrected.high >= single.high
    third = alone[2], together[2]
    assert third[0]
    assert third[1]
    # The second smallest of four.
    assert third[1].p_value == pytest.approx(3 * third[0].p_value)
    certain = compare_predictions(network(first_of(9000, 9000)), network(first_of(9000, 0)), "accuracy")
    extreme = verdicts([certain, found[0]])[0]
    assert extreme
    assert (extreme.p_value, extreme.differs) == (0, True)


def test_a_variant_is_compared_by_its_crossed_predictions_and_says_so(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, _ = open_sweep(compare_request(small(compare={"variants": {"low": {"train.optimizer.lr": 1e-4}}})))
    for run, hits in zip(sweep.runs(), (9, 12), strict=True):
        finished(run, hits)
    stored = RunDir.predictions

    def with_crossed(run: RunDir) -> Predictions:
        kept = stored(run)
        assert kept
        return replace(kept, crossed=network(first_of(20, int(kept.correct.sum()) - (run.name == "low"))))

    monkeypatch.setattr(RunDir, "predictions", with_crossed)
    _, low = compare_variants(sweep, read_table(sweep), {})
    assert (low["difference"], low["estimate"]) == (pytest.approx(0.15), pytest.approx(0.1))
    assert low["crossed"] is True
    assert low["low"] < 0.1 < low["high"]
    assert "val/accuracy +0.1500, corrected for the choice of the epochs +0.1000 (95" in low["seen"]
    assert "variants together" not in low["seen"]


def test_a_metric_that_is_no_mean_over_the_images_is_described_only(small: Callable[..., Config]) -> None:
    metrics = {"classification": ["accuracy", "macro_f1"], "select": {"name": "macro_f1"}}
    sweep, _ = open_sweep(compare_request(small(compare={"variants": {"low": {"lr": 1e-4}}}, metrics=metrics)))
    for run, hits in zip(sweep.runs(), (9, 2), strict=True):
        finished(run, hits)
        result = run.result() or {}
        write_training(run, {**result, "best": {**result["best"], "macro_f1": hits / 20}})
        assert difference_of(run, run, "macro_f1") is None
    _, low = compare_variants(sweep, read_table(sweep), {})
    assert (low["p_adjusted"], low["low"]) == (None, None)
    assert low["accuracy_low"] < low["accuracy_difference"] < low["accuracy_high"]
    assert "val/macro_f1" in low["seen"]
    assert "differs" not in low["seen"]


def test_a_difference_without_an_estimate_is_no_test() -> None:
    one = compare_predictions(network(first_of(50, 40)), network(first_of(50, 30)), "accuracy")
    assert one
    unknown = Difference(0.1, None, paired=True, crossed=False, is_share=False)
    found = verdicts([one, unknown])
    assert found[1] is None
    assert found[0] == verdicts([one])[0]
