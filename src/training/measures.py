"""The metrics of a network from its predictions for each image, and predictions crossed between the halves of val.

The value of the best of many epochs is too high: on other images, another epoch would have been the best. So the epoch
that is best on the even positions of val predicts the odd ones, and the reverse, as in two-fold cross-fitting
(Chernozhukov et al. 2018, doi:10.1111/ectj.12097). Val is in the order of its classes, so the halves have equally many
images of each, give or take one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from relay.config.sections import Select
from relay.runs.predictions import PREDICTED, Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS = ("accuracy", "top5_accuracy", "macro_f1", "loss")
# With fewer images, a half has one or none.
LEAST_IMAGES = 4
_HALVES = (slice(0, None, 2), slice(1, None, 2))


def confusion_matrix(predictions: Predictions, classes: int) -> NDArray[np.int64]:
    """The number of examples per true class (row) and predicted class (column), int64 (classes, classes)."""
    import numpy as np

    cells = predictions.label * classes + predictions.predicted
    counted: NDArray[np.int64] = np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    return counted


def _f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """The F1 score of each class, float (classes,); 0 for a class that neither occurs nor is predicted."""
    import numpy as np

    # F1 = 2 TP / (2 TP + FP + FN): a class's row and column both count its true positives.
    either = confusion.sum(0) + confusion.sum(1)
    scores: NDArray[np.float64] = 2 * confusion.diagonal() / np.maximum(either, 1)
    return scores


def metrics_of(predictions: Predictions, classes: int) -> dict[str, float]:
    """Accuracy, top-5 accuracy, macro F1 (the unweighted mean over the classes) and mean loss in nats."""
    return {
        "accuracy": float(predictions.correct.mean()),
        "top5_accuracy": float(predictions.in_top5.mean()),
        "macro_f1": float(_f1(confusion_matrix(predictions, classes)).mean()),
        "loss": float(predictions.loss.mean()),
    }


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
