"""Two runs, each on its val images: the difference of their accuracies and losses, with intervals.

Runs that were measured on the same images are compared image by image. Otherwise they are two samples: the intervals
are wider, and there is no paired test.
"""

from __future__ import annotations

from typing import Any

from src.results.intervals import difference_of_shares, mcnemar, t_interval, welch
from src.runs.predictions import Predictions
from src.runs.rundir import RunDir

# Keys of `difference_of`, all of them None where one of the runs has no results per image.
KEYS = ("paired", "n", "accuracy", "accuracy_low", "accuracy_high", "p_value", "loss", "loss_low", "loss_high")
UNPAIRED = "the two were measured on different images, so the intervals are not paired"


def difference_of(run: RunDir, base: RunDir) -> dict[str, Any]:
    """`run` minus `base`, of the best epoch of each, over the `n` images of val of `run`.

    `paired`: whether both were measured on the same images, which the digest of data and split decides. `accuracy` with
    its 95 % interval, and, if paired, the exact McNemar `p_value`; `loss` (nats) with the t interval of the mean of the
    paired differences, or Welch's. All None unless both runs have results per image. These describe the images alone:
    another seed of the same training differs, too. Raises RunError if a file is damaged.
    """
    own, theirs = run.predictions(), base.predictions()
    if own is None or theirs is None or not (len(own.label) and len(theirs.label)):
        return dict.fromkeys(KEYS)
    paired = own.same_images(theirs)
    accuracy = _paired_accuracy(own, theirs) if paired else _unpaired_accuracy(own, theirs)
    loss = t_interval((own.loss - theirs.loss).tolist()) if paired else welch(own.loss.tolist(), theirs.loss.tolist())
    difference = float(own.loss.mean() - theirs.loss.mean())
    return dict(zip(KEYS, (paired, len(own.label), *accuracy, difference, *(loss or (None, None))), strict=True))


def _paired_accuracy(own: Predictions, theirs: Predictions) -> tuple[float, float, float, float]:
    test = mcnemar(own.correct, theirs.correct)
    return test.difference, test.low, test.high, test.p_value


def _unpaired_accuracy(own: Predictions, theirs: Predictions) -> tuple[float, float, float, None]:
    hits = int(own.correct.sum()), len(own.label), int(theirs.correct.sum()), len(theirs.label)
    return hits[0] / hits[1] - hits[2] / hits[3], *difference_of_shares(*hits), None


def verdict(difference: float, low: float | None, high: float | None, metric: str) -> str:
    """The difference in words, with its interval where it is known."""
    if low is None or high is None:
        return f"{metric} {difference:+.4f} (no results per image, so no interval)"
    told = "cannot be told from 0" if low <= 0 <= high else "differs from 0"
    return f"{metric} {difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f}: {told})"
