"""From predictions to metrics with intervals, tables of classes and of confused pairs, and the gap to val."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from relay.results.statistics.intervals import (
    CROSSED_VARIANCE,
    LEVEL,
    Interval,
    bootstrap_error,
    difference_of_shares,
    exact_around,
    t_interval,
    wilson,
)
from relay.results.statistics.pairs import has_loss_interval
from relay.runs.predictions import Predictions
from src.config.schema import ALWAYS_IN_TOP5, Metrics
from src.evaluation.calibration import calibration_bins, calibration_error
from src.training.measures import confusion_matrix, metrics_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def intervals_of(predictions: Predictions, classes: int) -> dict[str, list[float]]:
    """The 95 % interval [low, high] of each metric: Wilson's for the shares, Student's for the loss.

    A metric without a finite value has no entry, nor has a loss of which too few images are wrong.
    """
    import numpy as np

    n = len(predictions.label)
    intervals: dict[str, Interval | None] = {
        "accuracy": wilson(int(predictions.correct.sum()), n),
        "top5_accuracy": wilson(int(predictions.in_top5.sum()), n),
        "macro_f1": _macro_f1_interval(predictions, classes),
    }
    if np.isfinite(predictions.loss).all() and has_loss_interval(predictions):
        low, high = t_interval(predictions.loss) or (0.0, math.inf)
        intervals["loss"] = max(0.0, low), high
    return {name: list(interval) for name, interval in intervals.items() if interval}


def _macro_f1_interval(predictions: Predictions, classes: int) -> Interval:
    """The exact interval of a share, with the number of images that gives the bootstrap's standard error."""
    import numpy as np

    def macro_f1_of(drawn: NDArray[np.int64]) -> float:
        label, predicted = predictions.label[drawn], predictions.predicted[drawn]
        hits = np.bincount(label[label == predicted], minlength=classes)
        either = np.bincount(label, minlength=classes) + np.bincount(predicted, minlength=classes)
        return float((2 * hits / np.maximum(either, 1)).mean())

    n = len(predictions.label)
    sizes = np.bincount(predictions.label, minlength=classes)
    # The mean of the classes is at most as precise as one share of so many images (n, if all have equally many). It
    # gives a width where no resample has a wrong image. The value +- 1.96 standard errors covered 20 to 99 % for 2 to
    # 200 classes and 50 to 2,000 images, Wilson's interval 92 for 2 classes of 50 images at 0.99, and this one 99.
    most = float(np.count_nonzero(sizes) ** 2 / (1 / sizes[sizes > 0]).sum())
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * bootstrap_error(macro_f1_of, n)
    return exact_around(macro_f1_of(np.arange(n)), half, most)


def class_rows(confusion: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """A row per class: its images, accuracy (which is its recall) with interval, precision, F1, and the class that it
    is mistaken for most often. What has no images to be computed from is None.
    """
    rows = []
    for label, name in enumerate(names):
        hits, n, predicted = (int(confusion[label, label]), int(confusion[label].sum()), int(confusion[:, label].sum()))
        low, high = wilson(hits, n) if n else (None, None)
        wrong = confusion[label].copy()
        wrong[label] = 0
        other = int(wrong.argmax())
        rows.append(
            {
                "class": label,
                "name": name,
                "n": n,
                "accuracy": hits / n if n else None,
                "accuracy_low": low,
                "accuracy_high": high,
                "precision": hits / predicted if predicted else None,
                "recall": hits / n if n else None,
                "f1": 2 * hits / (n + predicted) if n + predicted else None,
                "most_confused_with": names[other] if wrong[other] else None,
                "times": int(wrong[other]) or None,
            }
        )
    return rows


def confused_pairs(predictions: Predictions, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row per pair of a true class and a wrong prediction that occurs, the most frequent first.

    `share`: of the images of the true class. `mean_confidence`: of the wrong predictions.
    """
    import numpy as np

    classes = len(names)
    confusion = confusion_matrix(predictions, classes)
    cells = predictions.label * classes + predictions.predicted
    confidence = np.bincount(cells, predictions.confidence, classes * classes).reshape(classes, classes)
    pairs = [(int(t), int(p)) for t, p in np.argwhere(confusion) if t != p]
    return [
        {
            "true": true,
            "true_name": names[true],
            "predicted": predicted,
            "predicted_name": names[predicted],
            "n": int(confusion[true, predicted]),
            "share": float(confusion[true, predicted] / confusion[true].sum()),
            "mean_confidence": _known(float(confidence[true, predicted] / confusion[true, predicted])),
        }
        for true, predicted in sorted(pairs, key=lambda pair: (-confusion[pair], pair))
    ]


def _known(value: float) -> float | None:
    # A network with NaN weights has no confidence, and JSON has no NaN.
    return value if value == value else None


def evaluation_of(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """All that one evaluation says, as plain values; the content of evaluation.json.

    `metrics` (without top-5 accuracy where it is always 1), `intervals` ([low, high]), `ece` (see `CalibrationError`),
    `calibration` (see `Bin`), `classes` (see `class_rows`), `pairs` (see `confused_pairs`) and `confusion`, a list of
    rows. A value that is not finite is None.
    """
    import numpy as np

    classes = len(names)
    confusion, ece = confusion_matrix(predictions, classes), calibration_error(predictions)
    metrics, intervals = metrics_of(predictions, classes), intervals_of(predictions, classes)
    if classes <= ALWAYS_IN_TOP5:
        del metrics["top5_accuracy"], intervals["top5_accuracy"]
    return {
        "n": len(predictions.label),
        "metrics": {name: value if np.isfinite(value) else None for name, value in metrics.items()},
        "intervals": intervals,
        "ece": ece,
        "calibration": calibration_bins(predictions) if ece else [],
        "classes": class_rows(confusion, names),
        "pairs": confused_pairs(predictions, names),
        "confusion": confusion.tolist(),
    }


def evaluation_columns(metrics: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the table of results that an evaluation fills."""
    return {name: result[name] for name in ("split", "n", *metrics.columns, "checkpoint") if name in result}


def compare_with_val(accuracy: float, n: int, val: Mapping[str, Any]) -> dict[str, Any]:
    """The gap between the accuracy on `n` images and that on val.

    `val`: run, accuracy (of the best epoch), n, epochs (from which it was chosen), and crossed, the accuracy of the
    crossed predictions, or None. The result has these, and `gap` (accuracy minus crossed if that is known, otherwise
    minus that of the best epoch), `interval` (95 %, method 10 of Newcombe 1998), `explained` (whether it includes 0;
    None if only the choice of the epoch is known to favour val) and `sentence`, which says it in words.
    """
    crossed = val["crossed"]
    reference = val["accuracy"] if crossed is None else crossed
    val_n = val["n"] if crossed is None or val["epochs"] == 1 else val["n"] / CROSSED_VARIANCE
    low, high = difference_of_shares(round(accuracy * n), n, reference * val_n, val_n)
    gap = accuracy - reference
    explained: bool | None = low <= 0 <= high
    # The best epoch is the one on which val happened to be good, so a network is expected below it on new images.
    if crossed is None and gap < 0 and val["epochs"] > 1:
        explained = None
    corrected = "" if crossed is None else ", corrected for the choice of the epoch"
    distance = f"{abs(gap):.4f} {'below' if gap < 0 else 'above'}" if gap else "equal to"
    sentence = (
        f"accuracy {accuracy:.4f} is {distance} that on val{corrected} "
        f"(95 %: {low:+.4f} to {high:+.4f}): {_GAPS[explained].format(measured=n, **val)}"
    )
    return {**val, "gap": gap, "interval": [low, high], "explained": explained, "sentence": sentence}


_GAPS = {
    True: "compatible with chance",
    False: "more than chance explains with {measured} examples here and {n} on val",
    None: "no verdict, because the {accuracy:.4f} on val is the best of {epochs} epochs, which favours val",
}
