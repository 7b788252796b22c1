"""Two networks: the difference of their values on the images of val, with its interval and its verdict.

Networks that were measured on the same images are compared image by image. Otherwise they are two samples, and the
intervals are wider. The statements are about these two networks on other images of the same kind: another seed of the
same training differs, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from relay.results.statistics.intervals import (
    CROSSED_VARIANCE,
    LEVEL,
    Estimate,
    Interval,
    adjusted_wald,
    agresti_caffo,
    holm,
    student,
    welch,
)
from relay.runs.predictions import Predictions
from relay.runs.rundir import RunDir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNPAIRED = "the two were measured on different examples, so the intervals are not paired"

# The mean of fewer wrong images says little about the loss, of which they are the larger part: its interval covered 82
# to 93 % in place of 95, and 93 to 98 % where there were as many (confident networks, 50 to 8,000 images).
MIN_WRONG = 10

# The value of each image whose mean is the metric, float (N,), and whether it is between 0 and 1.
_VALUES: dict[str, tuple[Callable[[Predictions], NDArray[np.float64]], bool]] = {
    "accuracy": (lambda found: found.correct.astype("float64"), True),
    "top5_accuracy": (lambda found: found.in_top5.astype("float64"), True),
    "loss": (lambda found: found.loss, False),
}


@dataclass(frozen=True)
class Difference:
    """One network minus another: the difference of their means over the images, and its `estimate`; None if unknown.

    `paired`: whether both were measured on the same images. `crossed`: whether each image was predicted at an epoch
    that it did not select, see relay/runs/predictions.py. `is_share`: whether the values are between 0 and 1.
    """

    value: float
    estimate: Estimate | None
    paired: bool
    crossed: bool
    is_share: bool

    def interval(self, level: float = LEVEL) -> Interval | None:
        """The interval of the difference; that of two shares is within -1 and 1."""
        if self.estimate is None:
            return None
        low, high = self.estimate.interval(level)
        return (max(-1.0, low), min(1.0, high)) if self.is_share else (low, high)


@dataclass(frozen=True)
class Verdict:
    """Whether a difference can be told from 0: `p_value` and the interval, both corrected for the number of tests."""

    low: float
    high: float
    p_value: float

    @property
    def differs(self) -> bool:
        """Whether 0 is outside of the interval."""
        return not self.low <= 0 <= self.high


def compare_scores(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    *,
    paired: bool,
    is_share: bool,
) -> Estimate | None:
    """The mean of `first` minus that of `second`, one score per image, float (N,) and (M,), with N = M if `paired`.

    `is_share`: the scores are between 0 and 1. None for fewer than two images.
    """
    if is_share and _is_binary(first) and _is_binary(second):
        return (adjusted_wald if paired else agresti_caffo)(first > 0, second > 0)
    found = student(first - second) if paired else welch(first, second)
    if found is None or not is_share:
        return found
    # Networks that agree on all images may differ on others: a width as that of `adjusted_wald`.
    return replace(found, error=math.hypot(found.error, 1 / min(len(first), len(second))))


def _is_binary(scores: NDArray[np.float64]) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def difference_of(run: RunDir, base: RunDir, metric: str, *, crossed: bool = True) -> Difference | None:
    """`run` minus `base` in `metric` on val, in the metric's own sign.

    Of the crossed predictions if both have them and `crossed` is true, otherwise of the best epoch of each, which was
    chosen on these images. None without results per image, or if the metric is not the mean of a
    value of each image. Raises RunError if a file is damaged.
    """
    both = run.predictions(), base.predictions()
    if metric not in _VALUES or both[0] is None or both[1] is None:
        return None
    return compare_predictions(both[0], both[1], metric, crossed=crossed)


def compare_predictions(
    own: Predictions, theirs: Predictions, metric: str, *, crossed: bool = True
) -> Difference | None:
    """`own` minus `theirs`, as `difference_of`."""
    import numpy as np

    crossed = crossed and own.crossed is not None and theirs.crossed is not None
    sides = [side.crossed if crossed and side.crossed else side for side in (own, theirs)]
    value_of, is_share = _VALUES[metric]
    first, second = (value_of(side) for side in sides)
    if not (len(first) and len(second) and np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    paired = own.same_images(theirs)
    estimate = None
    if is_share or all(has_loss_interval(side) for side in sides):
        estimate = compare_scores(first, second, paired=paired, is_share=is_share)
    if estimate:
        variance = estimate.error**2 * (CROSSED_VARIANCE if crossed else 1.0)
        estimate = replace(estimate, error=math.sqrt(variance))
    return Difference(float(first.mean() - second.mean()), estimate, paired, crossed, is_share)


def has_loss_interval(predictions: Predictions) -> bool:
    """Whether enough images are wrong for an interval of the mean loss."""
    return int((~predictions.correct).sum()) >= MIN_WRONG


def verdicts(differences: Sequence[Difference | None]) -> list[Verdict | None]:
    """The verdict of each difference, so that all "differs" are right together with 95 % (Holm 1979).

    Each interval is widened as its p value is raised, so that it excludes 0 exactly where p is below 0.05. None for a
    difference without an estimate, which is no test.
    """
    estimates = [each.estimate if each else None for each in differences]
    raised = holm([estimate.p_value if estimate else None for estimate in estimates])
    tests = sum(estimate is not None for estimate in estimates)
    found: list[Verdict | None] = []
    for difference, estimate, adjusted in zip(differences, estimates, raised, strict=True):
        if difference is None or estimate is None or adjusted is None:
            found.append(None)
            continue
        times = adjusted / estimate.p_value if estimate.p_value else tests
        bounds = difference.interval(1 - (1 - LEVEL) / times)
        assert bounds is not None
        found.append(Verdict(*bounds, adjusted))
    return found


class Scope(Enum):
    """What a difference is about: two trained networks on other images, or two settings, with other seeds, too."""

    NETWORKS = "networks"
    SETTINGS = "settings"


_SCOPES = {
    Scope.NETWORKS: "for these two networks on new data; another seed may change it",
    Scope.SETTINGS: "for the two settings on new data and with other seeds",
}


def verdict_text(
    metric: str,
    best: float,
    difference: Difference | None,
    verdict: Verdict | None,
    tests: int = 1,
    scope: Scope = Scope.NETWORKS,
) -> str:
    """A difference in words, with its verdict. `best`: the difference of the best epochs, as the tables have it."""
    if verdict is None or difference is None:
        return f"{metric} {best:+.4f} ({'too few wrong predictions' if difference else 'no predictions'}, no interval)"
    corrected = f", corrected for the choice of the epochs {difference.value:+.4f}" if difference.crossed else ""
    several = f"; p = {verdict.p_value:.3g}, both for {tests} variants together" if tests > 1 else ""
    said = "differs from 0" if verdict.differs else "cannot be told from 0"
    bounds = f"95 %: {verdict.low:+.4f} to {verdict.high:+.4f}{several}"
    return f"{metric} {best:+.4f}{corrected} ({bounds}): {said} {_SCOPES[scope]}"


def difference_text(metric: str, value: float, interval: Interval | None) -> str:
    """A difference with its interval, without a verdict."""
    return f"{metric} {value:+.4f}" + (f" (95 %: {interval[0]:+.4f} to {interval[1]:+.4f})" if interval else "")
