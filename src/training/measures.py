"""What the predictions of a set of examples measure: accuracy, top-5 accuracy, macro F1 and loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.runs.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS = ("accuracy", "top5_accuracy", "macro_f1", "loss")


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
