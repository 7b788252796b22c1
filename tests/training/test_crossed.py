"""Two more running bests of a training: what each image's half did not select."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relay.config.sections import Select
from relay.runs.predictions import PREDICTED, Predictions, decode_predictions
from src.config.schema import Config
from src.training import trainer
from src.training.measures import half_scores, metrics_of
from src.training.state import TrainingState
from tests.conftest import assert_same_run
from tests.runs.test_predictions import same
from tests.training.test_trainer import execute, new_run

CLASSES = 4
EVEN, ODD = np.arange(20) % 2 == 0, np.arange(20) % 2 == 1


def epoch(right: Sequence[bool] | np.ndarray[Any, Any], seed: int = 0) -> Predictions:
    """What a network predicts that is right for these images."""
    random = np.random.default_rng(seed)
    right = np.array(right)
    label = np.arange(len(right)) * CLASSES // len(right)
    # With the digits of the file, so that what was read can be compared.
    confidence, loss = (random.random(len(right)).astype(kind).astype(float) for kind in ("float16", "float32"))
    predicted = np.where(right, label, (label + 1) % CLASSES)
    return Predictions(label, predicted, confidence, loss, random.random(len(right)) < 0.8, "images")


def part(found: Predictions, places: np.ndarray[Any, Any]) -> Predictions:
    return Predictions(found.label[places], *(getattr(found, name)[places] for name in PREDICTED), found.images)


def keep(state: TrainingState, found: Predictions, select: Select) -> bool:
    """One evaluation, as the trainer does it."""
    score = select.score(metrics_of(found, CLASSES)[select.name])
    is_best = state.best is None or score > state.best["score"]
    if is_best:
        state.best = {"score": score}
    return state.keep_predictions(found, half_scores(found, select, CLASSES), is_best=is_best)


def kept(state: TrainingState) -> Predictions:
    assert state.best_predictions is not None
    return decode_predictions(state.best_predictions.numpy().tobytes())


def first_best(epochs: Sequence[Predictions], select: Select, places: np.ndarray[Any, Any]) -> Predictions:
    """The earliest epoch that is best on the images at these places."""
    scores = [select.score(metrics_of(part(each, places), CLASSES)[select.name]) for each in epochs]
    return epochs[int(np.argmax(scores))]


@pytest.mark.parametrize(
    "select",
    [
        Select(),
        Select(name="top5_accuracy"),
        Select(name="macro_f1"),
        Select(name="loss", direction="min"),
        Select(direction="min"),
    ],
    ids=lambda select: f"{select.name}-{select.direction}",
)
def test_each_image_is_predicted_at_the_first_epoch_that_is_best_on_the_other_half(select: Select) -> None:
    differ = 0
    for trial in range(20):
        random = np.random.default_rng(trial)
        epochs = [epoch(random.random(20) < 0.6, 100 * trial + number) for number in range(8)]
        state = TrainingState()
        for each in epochs:
            keep(state, each, select)
            # A checkpoint after each epoch.
            restored = TrainingState()
            restored.load_state_dict(state.state_dict(), torch.device("cpu"))
            state = restored
        found = kept(state)
        assert found.crossed is not None
        best = first_best(epochs, select, EVEN | ODD)
        on_even, on_odd = (first_best(epochs, select, half) for half in (EVEN, ODD))
        assert same(part(found, EVEN | ODD), best)
        assert same(part(found.crossed, EVEN), part(on_odd, EVEN))
        assert same(part(found.crossed, ODD), part(on_even, ODD))
        differ += on_even is not on_odd
    assert differ > 5


def test_no_image_takes_part_in_the_choice_of_its_own_epoch() -> None:
    """Epochs without skill: the best one looks better than chance, its crossed predictions do not."""
    values = []
    for trial in range(300):
        random = np.random.default_rng(trial)
        state = TrainingState()
        for _ in range(40):
            keep(state, epoch(random.random(100) < 0.5), Select())
        found = kept(state)
        assert found.crossed is not None
        values.append((found.correct.mean(), found.crossed.correct.mean()))
    best, crossed = np.mean(values, axis=0)
    # The expected maximum of 40 values with a standard deviation of 0.05 is 0.5 + 2.16 x 0.05.
    assert best == pytest.approx(0.608, abs=0.006)
    assert crossed == pytest.approx(0.5, abs=0.01)


def test_an_epoch_that_is_no_best_changes_nothing_and_equal_ones_keep_the_first() -> None:
    state, first = TrainingState(), epoch(np.arange(20) < 15)
    assert keep(state, first, Select())
    before = state.best_predictions
    assert not keep(state, epoch(np.arange(20) < 15, seed=1), Select())
    assert not keep(state, epoch(np.arange(20) < 9, seed=2), Select())
    assert state.best_predictions is before
    assert same(kept(state).crossed, first)


def test_a_half_whose_metric_is_not_finite_is_no_best() -> None:
    state, first, second = TrainingState(), epoch(np.arange(20) < 5), epoch(np.arange(20) < 15, seed=1)
    assert state.keep_predictions(first, [0.25, 0.25], is_best=True)
    assert state.keep_predictions(second, [float("nan"), 0.75], is_best=False)
    assert not state.keep_predictions(second, [float("inf"), 0.5], is_best=False)
    assert state.half_scores == [0.25, 0.75]
    crossed = kept(state).crossed
    assert crossed is not None
    assert same(part(crossed, EVEN), part(second, EVEN))
    assert same(part(crossed, ODD), part(first, ODD))


@pytest.mark.parametrize(("images", "there"), [(1, False), (2, False), (3, False), (4, True), (5, True)])
def test_halves_with_one_image_or_none_select_nothing(images: int, there: bool) -> None:
    state = TrainingState()
    assert keep(state, epoch([False] * images), Select())
    assert keep(state, epoch([True] * images), Select())
    assert (kept(state).crossed is not None) == there
    assert kept(state).correct.all()


# By epoch: which images are predicted right. The first epoch is the best one of all; the second, of the odd positions;
# the fourth, of the even ones; the last, of nothing.
SCRIPT = [
    (EVEN & (np.arange(20) < 14)) | (ODD & (np.arange(20) < 14)),
    ODD & (np.arange(20) < 18),
    np.zeros(20, dtype=bool),
    EVEN & (np.arange(20) < 18),
    np.zeros(20, dtype=bool),
]


def test_the_file_of_a_run_has_them_although_they_are_of_epochs_after_the_best_and_after_any_interruption(
    small: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.evaluate_split
    # By the number of the epoch, whatever has been interrupted and repeated.
    running: list[trainer.Trainer] = []
    loop = trainer.Trainer._loop

    def noted_loop(self: trainer.Trainer) -> bool:
        running.append(self)
        return loop(self)

    monkeypatch.setattr(trainer.Trainer, "_loop", noted_loop)

    def scripted(*given: Any) -> Any:
        measured = real(*given)
        number = running[-1].state.step // 6 - 1
        found = epoch(SCRIPT[number], number)
        values = metrics_of(found, CLASSES)
        return measured and ({name: values[name] for name in measured[0]}, found)

    monkeypatch.setattr(trainer, "evaluate_split", scripted)
    start = functools.partial(small, train__epochs=5)
    whole, broken = (new_run(start(paths__runs_dir=str(tmp_path / name))) for name in ("whole", "broken"))
    assert execute(whole) == "done"
    for questions in (8, 9, 2, 6, 6):
        assert execute(broken, questions) == "stopped"
    # As if a killed attempt had gone on, in an environment that computed other predictions.
    broken.predictions_file.write_bytes(b"of an epoch that was lost")
    assert execute(broken) == "done"
    assert_same_run(whole, broken)

    found, result = whole.predictions(), whole.result()
    assert found is not None
    assert found.crossed is not None
    assert result is not None
    assert result["best"]["epoch"] == 1
    assert same(part(found, EVEN | ODD), epoch(SCRIPT[0], 0))
    assert same(part(found.crossed, EVEN), part(epoch(SCRIPT[1], 1), EVEN))
    assert same(part(found.crossed, ODD), part(epoch(SCRIPT[3], 3), ODD))
    # Neither the weights nor the value that is shown are those of another epoch.
    assert result["best"]["accuracy"] == found.correct.mean() == 0.7
    assert torch.load(whole.best_file, weights_only=True)["metrics"]["epoch"] == 1
