"""Predictions for each image of val at an epoch that the image did not help to select.

The value of the best of many epochs is too high: on other images, another epoch would have been the best. So the epoch
that is best on the even positions of val predicts the odd ones, and the reverse, as in two-fold cross-fitting
(Chernozhukov et al. 2018, doi:10.1111/ectj.12097). Val is in the order of its classes, so the halves have equally many
images of each, give or take one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from relay.config.sections import Select
from relay.runs.predictions import PREDICTED, Predictions
from src.training.measures import metrics_of

# With fewer images, a half has one or none.
LEAST_IMAGES = 4
_HALVES = (slice(0, None, 2), slice(1, None, 2))


def half_scores(predictions: Predictions, select: Select, classes: int) -> list[float]:
    """The selecting metric on the images at even positions and on those at odd ones, as scores (greater is better).

    Empty if there are fewer than `LEAST_IMAGES`.
    """
    if len(predictions.label) < LEAST_IMAGES:
        return []
    columns = ("label", *PREDICTED)
    halves = [replace(predictions, **{name: getattr(predictions, name)[half] for name in columns}) for half in _HALVES]
    return [select.score(metrics_of(each, classes)[select.name]) for each in halves]


def cross(before: Predictions | None, now: Predictions, improved: Sequence[bool]) -> Predictions:
    """The crossed predictions after an epoch that predicted `now`; `before` are those until then, None at the first.

    `improved`: whether the epoch is the best so far on the even positions, and on the odd ones. The images of the
    *other* half then take its predictions.
    """
    if before is None:
        return now
    columns = {name: getattr(before, name).copy() for name in PREDICTED}
    for half, is_best in enumerate(improved):
        if is_best:
            other = _HALVES[1 - half]
            for name, column in columns.items():
                column[other] = getattr(now, name)[other]
    return replace(before, **columns)
