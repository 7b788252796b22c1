from __future__ import annotations

import pytest

from relay.results.tables.ranking import Direction, Ranking, direction_of, ranking_of


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        *((name, "min") for name in ("val_loss", "Loss/valid", "trainLoss", "eval/perplexity", "test.rmse", "dev wer")),
        *((name, "min") for name in ("validation/categorical_crossentropy", "cross_entropy", "FID", "error_rate")),
        *((name, "max") for name in ("eval/accuracy", "bbox/AP", "coco/bbox_mAP", "rollout/ep_rew_mean", "Acc@1")),
        *((name, None) for name in ("grad_norm", "epoch", "lr", "policy_entropy", "glossary")),
    ],
)
def test_a_name_says_which_way_is_better(name: str, direction: Direction | None) -> None:
    assert direction_of(name) == direction


@pytest.mark.parametrize(
    ("column", "direction", "values", "is_share"),
    [
        ("val/accuracy", "max", [0.5, None, 1.0], True),
        ("eval/f1", "max", [0.0], True),
        ("bbox/AP", "max", [37.2, 0.5], False),
        ("val/loss", "min", [0.5], False),
        ("rollout/ep_rew_mean", "max", [0.5], False),
        ("val_accuracy_loss", "min", [0.5], False),
    ],
)
def test_shares_are_those_that_are_named_so_and_lie_between_0_and_1(
    column: str, direction: Direction, values: list[float | None], is_share: bool
) -> None:
    assert ranking_of(column, direction, values).is_share is is_share


def test_the_score_is_higher_for_the_better_value() -> None:
    assert (Ranking("val/loss", "min").score(2), Ranking("val/loss", "min").name) == (-2, "loss")
    assert (Ranking("eval/accuracy").score(2), Ranking("eval/accuracy").name) == (2, "eval/accuracy")
