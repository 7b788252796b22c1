"""Calibration: whether a network is right as often as its confidence says."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, TypedDict

from relay.results.statistics.intervals import LEVEL
from relay.runs.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 15
# The accuracy of fewer images is chance: such a bin is no part of the figure's line.
MIN_IN_BIN = 10
_DRAWS = 1000
# Numbers that are drawn at once: 32 MiB.
_AT_ONCE = 2**22


class Bin(TypedDict):
    """Images whose confidence is in (low, high]: their number, mean confidence and accuracy; None without images."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


class CalibrationError(TypedDict):
    """The expected calibration error `value`, and what it is compared with.

    `floor`: what a calibrated network with these confidences has on average; `bound`: at most, in 95 % of the cases or
    more. `interval`: of the true error of these bins, 95 % or more. `miscalibrated`: whether `value` is above `bound`;
    the interval excludes 0 exactly then. `sentence` says it in words.
    """

    value: float
    floor: float
    bound: float
    interval: list[float]
    miscalibrated: bool
    sentence: str


def calibration_bins(predictions: Predictions) -> list[Bin]:
    """Fifteen bins of equal width over the confidence, as in Guo et al. 2017 (arXiv:1706.04599)."""
    number = _bin_of(predictions.confidence)
    bins: list[Bin] = []
    for index in range(BINS):
        inside = number == index
        known = bool(inside.any())
        bins.append(
            {
                "low": index / BINS,
                "high": (index + 1) / BINS,
                "n": int(inside.sum()),
                "confidence": float(predictions.confidence[inside].mean()) if known else None,
                "accuracy": float(predictions.correct[inside].mean()) if known else None,
            }
        )
    return bins


def _bin_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    import numpy as np

    # The first bin includes 0.
    number: NDArray[np.int64] = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return number


def calibration_error(predictions: Predictions, seed: int = 0) -> CalibrationError | None:
    """The mean over the images of |accuracy - confidence| of their bin; None if a confidence is not finite.

    It is never 0 on a finite number of images, so it means nothing without `floor` and `bound`: the same error, 1,000
    times, of a network that is right on each image with the probability that its confidence says (Broecker and Smith
    2007, Weather and Forecasting 22:651). The same predictions and seed give the same numbers.

    The interval is wide on its lower side: noise adds to a sum of absolute values at most what it adds for a calibrated
    network, and lowers it by at most the noise of the accuracy. Simulated for 50 to 8,000 images and eleven kinds of
    confidences, it covers 93 to 100 %.
    """
    import numpy as np

    confidence, correct = predictions.confidence, predictions.correct
    if not (confidence.size and np.isfinite(confidence).all()):
        return None
    number = _bin_of(confidence)
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    confidence, correct = confidence[order], correct[order]
    n = len(order)

    def error_of(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Of each row of `hits`, bool (draws, n)."""
        sums: NDArray[np.float64] = np.abs(np.add.reduceat(hits - confidence, starts, axis=1)).sum(1) / n
        return sums

    random, rows = np.random.default_rng(seed), max(1, _AT_ONCE // n)
    blocks = [min(rows, _DRAWS - done) for done in range(0, _DRAWS, rows)]
    drawn = np.concatenate([error_of(random.random((block, n)) < confidence) for block in blocks])
    # One hit and one miss more in each bin: a bin without a wrong image has noise, too.
    sizes = np.diff(starts, append=n)
    shares = (np.add.reduceat(correct.astype(float), starts) + 1) / (sizes + 2)
    noise = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(float((sizes * shares * (1 - shares)).sum())) / n
    value, floor = float(error_of(correct[None])[0]), float(drawn.mean())
    # A confident network has bounds of a wrong image or two, which are less than the noise of its accuracy.
    bound = max(float(np.quantile(drawn, LEVEL)), noise)
    low, high = max(0.0, value - bound), min(1.0, value + noise)
    verdict = "this network is miscalibrated" if value > bound else "no miscalibration can be shown"
    return {
        "value": value,
        "floor": floor,
        "bound": bound,
        "interval": [low, high],
        "miscalibrated": value > bound,
        "sentence": f"ECE {value:.4f} (95 %: {low:.4f} to {high:.4f}); a calibrated network would have {floor:.4f} on "
        f"average and at most {bound:.4f} in 95 % of cases: {verdict}",
    }
