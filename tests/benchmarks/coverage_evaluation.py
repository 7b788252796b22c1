"""How often the statements about two networks, an evaluation and its calibration are right: rows of simulations.

The model is probit: an image is classified correctly if its latent value, difficulty * sqrt(share) + noise of the
network * sqrt(1 - share), is below the threshold of the network, which is set by the network's true accuracy. The noise
is drawn for each network, and for each epoch of it, so the truth about a network is known exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from relay.results.improvement import difference_of_settings
from relay.results.statistics.design import Design
from relay.results.statistics.image_scores import ImageGroup, ImageScores
from relay.results.statistics.noise import noise_of
from relay.results.statistics.pairs import compare_predictions, verdicts
from relay.runs.predictions import Predictions
from src.evaluation.calibration import calibration_error
from src.evaluation.summary import compare_with_val, intervals_of
from tests.benchmarks.coverage_row import Random, Row
from tests.benchmarks.simulation import SELECT, crossed_bits, grid_of, sweep_of

Bits = NDArray[np.bool_]


def network_bits(random: Random, n: int, accuracies: Sequence[float] | NDArray[np.float64], share: float = 0.5) -> Bits:
    """Whether each network, of the given true accuracy, classifies each image correctly, bool (networks, n)."""
    difficulty = random.normal(size=n) * np.sqrt(share)
    noise = random.normal(size=(len(accuracies), n)) * np.sqrt(1 - share)
    found: Bits = difficulty + noise < special.ndtri(np.asarray(accuracies))[:, None]
    return found


def predictions_of(bits: Bits, confidence: NDArray[np.float64] | None = None, images: str = "val") -> Predictions:
    """Predictions that are correct where `bits`, bool (n,), is true."""
    n = len(bits)
    label, zeros = np.zeros(n, dtype=np.int64), np.zeros(n)
    known = zeros if confidence is None else confidence
    return Predictions(label, (~bits).astype(np.int64), known, zeros, np.ones(n, dtype=bool), images)


def trained(epochs: Bits, *, crossed: bool = True) -> Predictions:
    """The predictions of a training: those of its best epoch, and the crossed ones."""
    best = predictions_of(epochs[epochs.mean(1).argmax()])
    return replace(best, crossed=predictions_of(crossed_bits(epochs))) if crossed else best


def gap_is_wrong(random: Random, test: int, val: int, epochs: int, *, crossed: bool = True) -> bool:
    """Whether a gap between images of the same kind is said to be more than chance."""
    accuracies = random.normal(0.5, 0.005, epochs)
    bits = network_bits(random, val, accuracies)
    best = int(bits.mean(1).argmax())
    known: dict[str, Any] = {"run": "s/r", "accuracy": float(bits[best].mean()), "n": val, "epochs": epochs}
    # Without the correction: as if there had been no choice.
    known |= {"crossed": float(crossed_bits(bits).mean())} if crossed else {"crossed": None, "epochs": 1}
    measured = random.binomial(test, accuracies[best]) / test
    return compare_with_val(measured, test, known)["explained"] is False


def _calibrated(random: Random, n: int, logit: float, sharpness: float) -> tuple[Predictions, NDArray[np.float64]]:
    """Predictions and the true probabilities; `sharpness` above 1: the network is too confident."""
    logits = random.normal(logit, 1.5, n)
    truth = special.expit(logits / sharpness)
    return predictions_of(random.random(n) < truth, special.expit(logits)), truth


def calibration_is_wrong(random: Random, n: int, logit: float) -> bool:
    """Whether a calibrated network is called miscalibrated."""
    predictions, _ = _calibrated(random, n, logit, 1.0)
    found = calibration_error(predictions)
    assert found
    return found["miscalibrated"]


def calibration_covers(random: Random, n: int, logit: float, sharpness: float) -> bool:
    """Whether the interval of the calibration error holds the true one of these bins."""
    predictions, truth = _calibrated(random, n, logit, sharpness)
    bins = np.ceil(predictions.confidence * 15)
    error = np.abs(np.bincount(bins.astype(int), truth - predictions.confidence)).sum() / n
    found = calibration_error(predictions)
    assert found
    return found["interval"][0] <= error <= found["interval"][1]


def pair_covers(random: Random, n: int, accuracy: float, share: float = 0.5) -> bool:
    """Whether the interval holds the difference of two networks over all images."""
    accuracies = random.normal(accuracy, 0.005, 2)
    own, theirs = map(predictions_of, network_bits(random, n, accuracies, share))
    found = compare_predictions(own, theirs, "accuracy")
    assert found
    low, high = found.interval() or (0.0, 0.0)
    return bool(low <= accuracies[0] - accuracies[1] <= high)


def unpaired_covers(random: Random, n: int, others: int, accuracy: float) -> bool:
    """The same for two networks on different images."""
    own, theirs = (
        predictions_of(network_bits(random, count, [accuracy])[0], images=str(count)) for count in (n, others)
    )
    found = compare_predictions(own, theirs, "accuracy")
    assert found
    assert not found.paired
    low, high = found.interval() or (1.0, 0.0)
    return low <= 0 <= high


def any_variant_differs(
    random: Random, n: int, accuracy: float, epochs: int = 1, variants: int = 4, *, crossed: bool = True
) -> bool:
    """Whether one of several networks that are equally good as the base is said to differ from it."""
    bits = network_bits(random, n, np.full((variants + 1) * epochs, accuracy))
    # With one epoch, nothing was chosen, and the runs are compared as they are.
    runs = [trained(part, crossed=crossed and epochs > 1) for part in np.split(bits, variants + 1)]
    found = verdicts([compare_predictions(run, runs[0], "accuracy") for run in runs[1:]])
    return any(verdict is not None and verdict.differs for verdict in found)


def improvement_covers(random: Random, n: int, first: int, refined: int, spread: float) -> bool:
    """Whether the interval of the best of one grid minus the best of another holds the difference of the networks."""
    accuracies = random.normal(0.5, spread, first + refined)
    bits = network_bits(random, n, accuracies)
    means = bits.mean(1)
    places = int(means[:first].argmax()), first + int(means[first:].argmax())
    found = compare_predictions(predictions_of(bits[places[1]]), predictions_of(bits[places[0]]), "accuracy")
    assert found
    low, high = found.interval() or (0.0, 0.0)
    return bool(low <= accuracies[places[1]] - accuracies[places[0]] <= high)


def settings_cover(random: Random, n: int, spread: float) -> bool:
    """Whether the interval for the best settings of two grids, whose settings are all equal, includes 0."""
    whole = sweep_of(random, [0.4] * 57, n, sd=spread)
    assert whole.correct is not None
    best, spreads = [], []
    for place, points in ((slice(48), grid_of(2, 2, 3, 2, 2)), (slice(48, 57), grid_of(3, 3))):
        scores, numbers = whole.correct[:, place], list(range(len(points)))
        basis = Design(points, list(points[0]), repeated=False).basis
        noise = noise_of([[0.0]] * len(points), [ImageGroup(numbers, numbers, scores, scores)], basis)
        best.append(scores[:, int(noise.values.argmax())])
        spreads.append(noise.spread)
    both = np.stack(best, axis=1)
    found = difference_of_settings(
        ImageScores([ImageGroup([0, 1], [0, 1], both, both)], False), [1, 1], spreads, SELECT
    )
    low, high = found.interval() or (0.0, 0.0)
    return low <= 0 <= high


def macro_f1_covers(random: Random, sizes: Sequence[int], accuracy: float) -> bool:
    """Whether the interval of macro F1 holds the true one, with wrong predictions spread evenly over the classes."""
    classes, counts = len(sizes), np.asarray(sizes)
    label = np.repeat(np.arange(classes), counts)
    other = (label + random.integers(1, classes, len(label))) % classes
    predicted = np.where(random.random(len(label)) < accuracy, label, other)
    ones = np.ones(len(label))
    found = intervals_of(Predictions(label, predicted, ones, ones, ones > 0, "test"), classes)["macro_f1"]
    shares = counts / counts.sum()
    truth = (
        2 * accuracy * shares / (shares + accuracy * shares + (1 - accuracy) * (1 - shares) / (classes - 1))
    ).mean()
    return bool(found[0] <= truth <= found[1])


def loss_covers(random: Random, n: int, logit: float) -> bool:
    """Whether the interval of the mean loss, where one is given, holds the true one (a calibrated network)."""
    while True:
        logits = random.normal(logit, 2.0, n)
        right = random.random(n) < special.expit(logits)
        found = replace(predictions_of(right), loss=-np.log(special.expit(np.where(right, logits, -logits))))
        low, high = intervals_of(found, 2).get("loss", (1.0, 0.0))
        if low <= high:
            return bool(low <= _mean_loss(logit) <= high)


@functools.cache
def _mean_loss(logit: float) -> float:
    """The entropy of the calibrated network, over normal logits."""
    points = special.ndtri((np.arange(100_000) + 0.5) / 100_000) * 2.0 + logit
    return float((special.entr(special.expit(points)) + special.entr(special.expit(-points))).mean())


GAP = "a gap between test and val is more than chance, where there is none"
CALIBRATED = "a calibrated network is called miscalibrated"
ECE = "the interval holds the true calibration error"
PAIR = "the interval holds the difference of these two networks"
VARIANTS = "one of 4 variants differs from the base, where all networks are equal"
BETTER = "the interval holds the difference of the best networks of two grids"
SETTINGS = "the interval holds the difference of the best settings of two grids"
F1 = "the interval holds the true macro F1"
LOSS = "the interval holds the true loss, where one is given"
UNEVEN = tuple(round(4 * 1.6**place) for place in range(10))

ROWS = (
    Row(GAP, "best of 40 epochs, val 600, test 150", 0.05, lambda r: gap_is_wrong(r, 150, 600, 40)),
    Row(GAP, "best of 40 epochs, val 8000, test 2000", 0.05, lambda r: gap_is_wrong(r, 2000, 8000, 40)),
    Row(GAP, "best of 40 epochs, val 600, test 600", 0.05, lambda r: gap_is_wrong(r, 600, 600, 40)),
    Row(CALIBRATED, "150 images", 0.05, lambda r: calibration_is_wrong(r, 150, 0.5)),
    Row(CALIBRATED, "600 images", 0.05, lambda r: calibration_is_wrong(r, 600, 0.5)),
    Row(CALIBRATED, "600 images, confidence 0.9", 0.05, lambda r: calibration_is_wrong(r, 600, 3.0)),
    Row(CALIBRATED, "8000 images", 0.05, lambda r: calibration_is_wrong(r, 8000, 0.5)),
    Row(ECE, "calibrated, 600 images", 0.95, lambda r: calibration_covers(r, 600, 0.5, 1.0)),
    Row(ECE, "too confident, 600 images", 0.95, lambda r: calibration_covers(r, 600, 1.0, 2.5)),
    Row(ECE, "confidence 0.99, too confident, 150 images", 0.95, lambda r: calibration_covers(r, 150, 6.0, 2.0)),
    Row(PAIR, "200 images", 0.95, lambda r: pair_covers(r, 200, 0.7)),
    Row(PAIR, "200 images, accuracy 0.97", 0.95, lambda r: pair_covers(r, 200, 0.97)),
    Row(PAIR, "8000 images", 0.95, lambda r: pair_covers(r, 8000, 0.7, 0.8)),
    Row(PAIR, "different images, 600 and 150", 0.95, lambda r: unpaired_covers(r, 600, 150, 0.9)),
    Row(VARIANTS, "600 images", 0.05, lambda r: any_variant_differs(r, 600, 0.5)),
    Row(VARIANTS, "8000 images", 0.05, lambda r: any_variant_differs(r, 8000, 0.5)),
    Row(VARIANTS, "200 images, accuracy 0.95", 0.05, lambda r: any_variant_differs(r, 200, 0.95)),
    Row(VARIANTS, "best of 10 epochs, 600 images", 0.05, lambda r: any_variant_differs(r, 600, 0.5, 10)),
    Row(VARIANTS, "best of 40 epochs, 600 images", 0.05, lambda r: any_variant_differs(r, 600, 0.5, 40)),
    Row(BETTER, "48 and 9 equal cells, 1000 images", 0.95, lambda r: improvement_covers(r, 1000, 48, 9, 0.0)),
    Row(BETTER, "48 and 9 cells, sd 0.005, 8000 images", 0.95, lambda r: improvement_covers(r, 8000, 48, 9, 0.005)),
    Row(
        SETTINGS,
        "48 and 9 cells, seed sd 0.005, 8000 images",
        0.95,
        lambda r: settings_cover(r, 8000, 0.005),
    ),
    Row(F1, "2 classes of 50 images, accuracy 0.99", 0.95, lambda r: macro_f1_covers(r, [50] * 2, 0.99)),
    Row(F1, "10 classes of 20 images, accuracy 0.99", 0.95, lambda r: macro_f1_covers(r, [20] * 10, 0.99)),
    Row(F1, "10 classes of 4 to 275 images, accuracy 0.9", 0.95, lambda r: macro_f1_covers(r, UNEVEN, 0.9)),
    Row(LOSS, "100 images", 0.95, lambda r: loss_covers(r, 100, 2.5)),
    Row(LOSS, "600 images", 0.95, lambda r: loss_covers(r, 600, 4.0)),
)
