"""From per-image predictions to metrics with intervals, tables of classes and of confused pairs, and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from src.results.intervals import Interval, bootstrap, difference_of_shares, wilson
from src.runs.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 15
METRICS = ("accuracy", "top5_accuracy", "macro_f1", "loss")


def confusion_matrix(predictions: Predictions, classes: int) -> NDArray[np.int64]:
    """The number of images per true class (row) and predicted class (column), int64 (classes, classes)."""
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


def intervals_of(predictions: Predictions, classes: int) -> dict[str, list[float]]:
    """The 95 % interval [low, high] of each metric: Wilson for the shares, bootstrap for macro F1 and loss.

    A metric without a finite value has no entry.
    """
    import numpy as np

    n = len(predictions.label)

    def macro_f1_of(drawn: NDArray[np.int64]) -> float:
        label, predicted = predictions.label[drawn], predictions.predicted[drawn]
        hits = np.bincount(label[label == predicted], minlength=classes)
        either = np.bincount(label, minlength=classes) + np.bincount(predicted, minlength=classes)
        return float((2 * hits / np.maximum(either, 1)).mean())

    intervals: dict[str, Interval] = {
        "accuracy": wilson(int(predictions.correct.sum()), n),
        "top5_accuracy": wilson(int(predictions.in_top5.sum()), n),
        "macro_f1": _within(bootstrap(macro_f1_of, n), 1.0),
    }
    if np.isfinite(predictions.loss).all():
        intervals["loss"] = _within(bootstrap(lambda drawn: float(predictions.loss[drawn].mean()), n))
    return {name: list(interval) for name, interval in intervals.items()}


def _within(interval: Interval, most: float = float("inf")) -> Interval:
    return max(0.0, interval[0]), min(most, interval[1])


class Bin(TypedDict):
    """Images whose confidence is in (low, high]: their number, mean confidence and accuracy; None without images."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def calibration_bins(predictions: Predictions) -> list[Bin]:
    """Fifteen bins of equal width over the confidence, as in Guo et al. 2017 (arXiv:1706.04599)."""
    import numpy as np

    # The first bin includes 0.
    number = np.clip(np.ceil(np.nan_to_num(predictions.confidence) * BINS).astype(int) - 1, 0, BINS - 1)
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


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: the mean over the images of |accuracy - confidence| of their bin."""
    gaps = [b["n"] * abs((b["accuracy"] or 0.0) - (b["confidence"] or 0.0)) for b in bins if b["n"]]
    return sum(gaps) / sum(b["n"] for b in bins)


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

    `metrics`, `intervals` ([low, high]), `ece`, `calibration` (see `Bin`), `classes` (see `class_rows`), `pairs` (see
    `confused_pairs`) and `confusion`, a list of rows. A value that is not finite is None.
    """
    import numpy as np

    classes = len(names)
    confusion, bins = confusion_matrix(predictions, classes), calibration_bins(predictions)
    known = bool(np.isfinite(predictions.confidence).all())
    return {
        "n": len(predictions.label),
        "metrics": {
            name: value if np.isfinite(value) else None for name, value in metrics_of(predictions, classes).items()
        },
        "intervals": intervals_of(predictions, classes),
        "ece": calibration_error(bins) if known else None,
        "calibration": bins if known else [],
        "classes": class_rows(confusion, names),
        "pairs": confused_pairs(predictions, names),
        "confusion": confusion.tolist(),
    }


def compare_with_val(accuracy: float, n: int, val: Mapping[str, Any]) -> dict[str, Any]:
    """The gap between the accuracy on `n` images and that of the best epoch on val, `val` (run, accuracy, n).

    `gap` is accuracy minus val accuracy, `interval` its 95 % interval by Newcombe's method 10, `explained` whether the
    interval includes 0, and `sentence` says it in words.
    """
    hits, val_hits = round(accuracy * n), round(val["accuracy"] * val["n"])
    low, high = difference_of_shares(hits, n, val_hits, val["n"])
    gap, explained = accuracy - val["accuracy"], low <= 0 <= high
    verdict = (
        f"two samples of {n} and {val['n']} images explain such a gap"
        if explained
        else f"two samples of {n} and {val['n']} images do not explain this gap"
    )
    # The epoch was chosen because val happened to be good on it.
    chosen = "; the best epoch was chosen on val, which favours val" if gap < 0 else ""
    distance = f"{abs(gap):.4f} {'below' if gap < 0 else 'above'}" if gap else "equal to"
    sentence = (
        f"accuracy {accuracy:.4f} is {distance} the {val['accuracy']:.4f} on val "
        f"(95 % interval of the gap {low:+.4f} to {high:+.4f}): {verdict}{chosen}"
    )
    return {**val, "gap": gap, "interval": [low, high], "explained": explained, "sentence": sentence}
