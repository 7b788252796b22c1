"""Two runs on the same val images: the difference of their accuracies and losses, with intervals and a paired test."""

from __future__ import annotations

from typing import Any

from src.results.intervals import mcnemar, t_interval
from src.runs.predictions import read_predictions
from src.runs.rundir import RunDir

# Keys of `paired_difference`, all of them None where one of the runs has no results per image.
KEYS = ("n", "accuracy", "accuracy_low", "accuracy_high", "p_value", "loss", "loss_low", "loss_high")


def paired_difference(run: RunDir, base: RunDir) -> dict[str, Any]:
    """`run` minus `base`, of the best epoch of each, over the `n` images of val.

    `accuracy` with its 95 % interval and the exact McNemar `p_value`; `loss` (nats) with the t interval of the mean of
    the paired differences. All None unless both runs have results per image, of the same images. These describe the
    images alone: another seed of the same training differs, too. Raises RunError if a file is damaged.
    """
    own, theirs = (read_predictions(each.predictions_file) for each in (run, base))
    if own is None or theirs is None or own.label.tolist() != theirs.label.tolist() or not len(own.label):
        return dict.fromkeys(KEYS)
    test = mcnemar(own.correct, theirs.correct)
    losses = own.loss - theirs.loss
    low, high = t_interval(losses.tolist()) or (None, None)
    accuracy = (test.difference, test.low, test.high, test.p_value)
    return dict(zip(KEYS, (test.n, *accuracy, float(losses.mean()), low, high), strict=True))


def verdict(difference: float, low: float | None, high: float | None, metric: str) -> str:
    """The difference in words, with its interval where it is known."""
    if low is None or high is None:
        return f"{metric} {difference:+.4f} (no results per image, so no interval)"
    told = "cannot be told from 0" if low <= 0 <= high else "differs from 0"
    return f"{metric} {difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f}: {told})"
