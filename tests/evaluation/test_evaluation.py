from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from hpc.works import work_of
from relay.errors import RunError
from relay.progress import PlainReporter
from relay.results.collection import answer_of_sweep
from relay.results.statistics.intervals import t_interval
from relay.runs.lifecycle import attempt
from relay.runs.predictions import Predictions, read_predictions
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.data import synthetic
from src.data.dataset import load, prepare
from src.evaluation import figures as evaluation_figures
from src.evaluation.calibration import CalibrationError, calibration_bins, calibration_error
from src.evaluation.evaluator import evaluate
from src.evaluation.files import FIGURES, crossed_on_val
from src.evaluation.summary import (
    compare_with_val,
    confused_pairs,
    evaluation_of,
    intervals_of,
)
from src.models.registry import build_model
from src.requests import evaluation_request
from src.training.weights import save_weights

NAMES = ["ant", "bee", "cat"]


def predictions() -> Predictions:
    """Ten images: 4 ants, of which one is taken for a bee; 4 bees, of which two are taken for cats; 2 cats."""
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    confidence = np.array([0.9, 0.9, 0.9, 0.6, 0.9, 0.9, 0.5, 0.7, 0.9, 0.9])
    return Predictions(label, predicted, confidence, -np.log(confidence), np.ones(10, dtype=bool), "images")


def test_an_evaluation_counts_classes_and_pairs() -> None:
    found = evaluation_of(predictions(), NAMES)
    assert found["confusion"] == [[3, 1, 0], [0, 2, 2], [0, 0, 2]]
    assert found["metrics"]["accuracy"] == 0.7
    bee = found["classes"][1]
    assert (bee["recall"], bee["precision"], bee["most_confused_with"], bee["times"]) == (0.5, 2 / 3, "cat", 2)
    assert bee["f1"] == pytest.approx(4 / 7)
    pairs = confused_pairs(predictions(), NAMES)
    assert [(pair["true_name"], pair["predicted_name"], pair["n"]) for pair in pairs] == [
        ("bee", "cat", 2),
        ("ant", "bee", 1),
    ]
    assert pairs[0]["mean_confidence"] == pytest.approx(0.6)
    json.dumps(found, allow_nan=False)


def test_the_intervals_hold_the_values_and_the_same_predictions_give_the_same_intervals() -> None:
    found = evaluation_of(predictions(), NAMES)
    # Of three classes, the right one is always among the five most probable.
    assert set(found["intervals"]) == {"accuracy", "macro_f1"} == set(found["metrics"]) - {"loss"}
    six = [*NAMES, "dog", "elk", "fox"]
    assert set(evaluation_of(predictions(), six)["intervals"]) == {"accuracy", "top5_accuracy", "macro_f1"}
    for name, (low, high) in found["intervals"].items():
        assert low <= found["metrics"][name] <= high, name
    assert intervals_of(predictions(), 3).items() > found["intervals"].items()
    assert found["intervals"]["accuracy"] == pytest.approx([0.3968, 0.8922], abs=1e-4)


def test_few_images_have_a_width_or_no_interval() -> None:
    right = np.repeat([0, 1], [30, 20])
    perfect = Predictions(right, right, np.ones(50), np.zeros(50), np.ones(50, dtype=bool), "images")
    found = intervals_of(perfect, 2)
    # Two classes of 30 and 20 images are as precise as 4 / (1 / 30 + 1 / 20) = 48.
    exact = stats.binomtest(48, 48).proportion_ci(0.95, "exact")
    assert found["macro_f1"] == pytest.approx([exact.low, exact.high])
    assert "loss" not in found
    wrong = replace(perfect, predicted=np.where(np.arange(50) < 10, 1 - right, right), loss=np.arange(50) / 50)
    assert intervals_of(wrong, 2)["loss"] == pytest.approx(t_interval(wrong.loss))
    assert "loss" not in intervals_of(replace(wrong, predicted=np.where(np.arange(50) < 9, 1 - right, right)), 2)


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    bins = calibration_bins(predictions())
    assert sum(b["n"] for b in bins) == 10
    found = calibration_error(predictions())
    assert found
    # Seven images with confidence 0.9 are all correct; 0.5, 0.6 and 0.7 are wrong: (7 * 0.1 + 0.5 + 0.6 + 0.7) / 10.
    assert found["value"] == pytest.approx(0.25)
    assert found == calibration_error(predictions())
    assert found["interval"][0] == 0
    assert "no miscalibration can be shown" in found["sentence"]


def test_the_calibration_error_is_compared_with_that_of_a_calibrated_network() -> None:
    # One bin of n images with confidence 0.65: the error is |hits / n - 0.65|, a half-normal value.
    n, share = 10_000, 0.65
    zeros = np.zeros(n, dtype=np.int64)

    def found(hits: int) -> CalibrationError:
        predicted = (np.arange(n) >= hits).astype(np.int64)
        error = calibration_error(Predictions(zeros, predicted, np.full(n, share), zeros + 0.5, zeros == 0, "images"))
        assert error
        return error

    deviation = np.sqrt(share * (1 - share) / n)
    calibrated = found(6510)
    assert calibrated["floor"] == pytest.approx(deviation * np.sqrt(2 / np.pi), rel=0.1)
    assert calibrated["bound"] == pytest.approx(1.96 * deviation, rel=0.1)
    assert not calibrated["miscalibrated"]
    confident = found(6000)
    assert confident["interval"] == pytest.approx([0.05 - 1.96 * deviation, 0.05 + 1.96 * deviation], rel=0.05)
    assert confident["miscalibrated"]
    assert "this network is miscalibrated" in confident["sentence"]


def test_two_wrong_images_are_no_miscalibration() -> None:
    """A calibrated network with this confidence has none or one, but the interval of an accuracy of 48 of 50 has 1."""
    zeros = np.zeros(50, dtype=np.int64)
    content = Predictions(zeros, (np.arange(50) < 2).astype(np.int64), zeros + 0.995, zeros + 0.5, zeros == 0, "images")
    found = calibration_error(content)
    assert found
    assert found["value"] == pytest.approx(0.035)
    assert (found["miscalibrated"], found["interval"][0]) == (False, 0)


def test_a_confidence_that_is_not_finite_has_no_calibration() -> None:
    found = evaluation_of(replace(predictions(), confidence=np.full(10, np.nan)), NAMES)
    assert (found["ece"], found["calibration"]) == (None, [])


def test_the_line_of_the_calibration_leaves_out_bins_of_few_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(evaluation_figures, "save_figure", lambda figure, path: drawn.append(figure))
    counts = [10, 9, 30, 12]
    confidence = np.repeat([0.1, 0.3, 0.5, 0.9], counts)
    n = len(confidence)
    half = (np.arange(n) % 2).astype(np.int64)
    content = Predictions(half * 0, half, confidence, confidence, half == 0, "images")
    found = evaluation_of(content, ["a", "b"])
    evaluation_figures.draw_calibration(found["calibration"], found["ece"], tmp_path / "calibration.png")
    axes = drawn[0].axes[0]
    line, few = axes.lines[1:]
    points = np.asarray(line.get_xydata(), dtype=float)
    assert points[np.isfinite(points).all(1), 0] == pytest.approx([0.1, 0.5, 0.9])
    # The line is broken where the bin of nine images is.
    assert np.isnan(points[4, 1])
    assert np.asarray(few.get_xdata()) == pytest.approx([0.3])
    assert (few.get_linestyle(), few.get_fillstyle()) == ("None", "none")
    assert f"{found['ece']['floor']:.4f} on average, at most {found['ece']['bound']:.4f}" in axes.get_title("left")


def test_a_gap_has_a_verdict_unless_the_epoch_was_chosen_on_val() -> None:
    val = {"run": "a/b", "accuracy": 0.5, "n": 8000, "epochs": 40, "crossed": None}
    below = compare_with_val(0.40, 2000, val)
    assert below["explained"] is None
    assert "0.1000 below that on val (95" in below["sentence"]
    assert "no verdict, because the 0.5000 on val is the best of 40 epochs" in below["sentence"]
    assert compare_with_val(0.40, 2000, {**val, "epochs": 1})["explained"] is False
    assert compare_with_val(0.60, 2000, val)["explained"] is False
    assert compare_with_val(0.51, 2000, val)["explained"] is True
    crossed = compare_with_val(0.465, 2000, {**val, "crossed": 0.48})
    assert crossed["gap"] == pytest.approx(-0.015)
    assert crossed["explained"] is True
    assert "0.0150 below that on val, corrected for the choice of the epoch (95" in crossed["sentence"]
    assert "compatible with chance" in crossed["sentence"]
    large = compare_with_val(0.40, 2000, {**val, "crossed": 0.48})
    assert large["explained"] is False
    assert "more than chance explains with 2000 examples here and 8000 on val" in large["sentence"]
    assert "is equal to that on val" in compare_with_val(0.5, 10, val)["sentence"]


def test_the_crossed_value_of_val_is_that_of_the_run_that_wrote_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = replace(predictions(), crossed=replace(predictions(), predicted=np.zeros(10, dtype=np.int64)))
    found: dict[str, Predictions | None] = {"s/train": kept, "s/older": predictions(), "../train": kept}
    monkeypatch.setattr(RunDir, "predictions", lambda run: found.get(f"{run.path.parent.name}/{run.path.name}"))
    val = {"run": "s/train", "accuracy": 0.7, "n": 10, "epochs": 5}
    assert crossed_on_val(val, tmp_path) == pytest.approx(0.4)
    for change in (
        {"run": "s/older"},
        {"run": "s/gone"},
        {"run": None},
        {"run": "../train"},
        {"accuracy": 0.6},
        {"n": 11},
    ):
        assert crossed_on_val({**val, **change}, tmp_path) is None, change

    def damaged(run: RunDir) -> None:
        raise RunError("damaged")

    monkeypatch.setattr(RunDir, "predictions", damaged)
    assert crossed_on_val(val, tmp_path) is None


def test_an_evaluation_leaves_tables_figures_and_its_gap_to_val(
    small: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(evaluation__checkpoint=str(tmp_path / "a.ckpt"))
    torch.manual_seed(0)
    weights = build_model(config.model).state_dict()
    content = {"model_state_dict": weights, "config": config.to_dict(), "metrics": {"accuracy": 0.9}, "run": "s/train"}
    save_weights(tmp_path / "a.ckpt", content)
    sweep, _ = open_sweep(evaluation_request(config))
    (run,) = sweep.runs()
    attempt(run, evaluate, lambda: False, PlainReporter())
    result, kept = run.result(), read_predictions(run.predictions_file)
    assert result is not None
    assert kept is not None
    assert len(kept.label) == result["n"] == config.dataset.split.test
    assert result["accuracy"] == float(kept.correct.mean())
    assert result["against_val"]["run"] == "s/train"
    against = result["against_val"]
    assert (against["epochs"], against["crossed"]) == (config.train.epochs, None)
    assert result["ece"]["floor"] <= result["ece"]["bound"]
    assert len(pd.read_csv(run.path / "per_class.csv")) == config.model.num_classes
    assert pd.read_csv(run.path / "confusion.csv", index_col=0).to_numpy().sum() == result["n"]
    assert len(list(run.path.glob("events.out.tfevents.*"))) == 1
    capsys.readouterr()
    work_of(sweep.kind).show(sweep, config.paths, answer_of_sweep(sweep))
    said = capsys.readouterr().out
    assert f"M9   {against['sentence']}" in said
    assert f"M9   {result['ece']['sentence']}" in said
    copies = {path.name for path in Path(config.paths.artifacts_dir).glob(f"{sweep.name}_*")}
    assert copies >= {f"{sweep.name}_{name}" for name in ("confusion.png", "calibration.png", "confused_pairs.png")}


def test_an_evaluation_asks_the_run_of_the_checkpoint_for_its_crossed_predictions(
    small: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(evaluation__checkpoint=str(tmp_path / "a.ckpt"))
    asked = []

    def crossed(val: dict[str, Any], runs_dir: Path) -> float:
        asked.append((val["run"], runs_dir))
        return 0.625

    monkeypatch.setattr("src.evaluation.evaluator.crossed_on_val", crossed)
    _, result = evaluated(config, config.to_dict(), {"accuracy": 0.9})
    assert asked == [("s/train", Path(config.paths.runs_dir))]
    assert (result["against_val"]["accuracy"], result["against_val"]["crossed"]) == (0.9, 0.625)
    assert result["against_val"]["gap"] == pytest.approx(result["accuracy"] - 0.625)


@pytest.mark.parametrize(
    ("split", "n"),
    [({"val": 20, "test": 20}, 20), ({"val": 0.4, "test": 20}, 16), ({"valid": None, "val": "valid", "test": 0.1}, 40)],
)
def test_val_of_any_kind_has_a_gap(small: Callable[..., Config], tmp_path: Path, split: dict[str, Any], n: int) -> None:
    config = small(evaluation__checkpoint=str(tmp_path / "a.ckpt"), dataset__split=split)
    _, result = evaluated(config, config.to_dict(), {"accuracy": 0.9})
    assert result["against_val"]["n"] == n


def evaluated(
    config: Config, trained_with: dict[str, Any], best: dict[str, float] | None = None
) -> tuple[SweepDir, dict[str, Any]]:
    """The evaluation of a checkpoint that has `trained_with` as its configuration and `best` as the metrics of its best
    epoch, and the content of result.json.
    """
    assert config.evaluation.checkpoint
    content = {"model_state_dict": build_model(config.model).state_dict(), "config": trained_with, "run": "s/train"}
    content |= {"metrics": best} if best else {}
    save_weights(Path(config.evaluation.checkpoint), content)
    sweep, _ = open_sweep(evaluation_request(config), fresh=True)
    (run,) = sweep.runs()
    attempt(run, evaluate, lambda: False, PlainReporter())
    return sweep, run.result() or {}


@pytest.mark.parametrize(
    "change",
    [
        {"dataset__split__seed": 7},
        {"dataset__split__test": 28, "dataset__split__val": 12},
        {"dataset__split__test": 36, "dataset__split__val": 4},
    ],
)
def test_a_named_checkpoint_says_how_many_test_images_chose_its_epoch(
    small: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    config = small(**change, evaluation__checkpoint=str(tmp_path / "a.ckpt"))
    valid = load(config).test
    chose = set(load(small()).val.indices.tolist())
    count = sum(index in chose for index in valid.indices.tolist())
    assert count > 0
    sweep, result = evaluated(config, small().to_dict())
    sentence = f"of the {len(valid)} test examples, 0 were trained on and {count} chose the best epoch"
    assert result["leak"].startswith(sentence)
    said = capsys.readouterr()
    assert f"warning: {tmp_path / 'a.ckpt'}: {sentence}" in said.err
    work_of(sweep.kind).show(sweep, config.paths, answer_of_sweep(sweep))
    assert f"M9   {sentence}" in capsys.readouterr().out


def test_a_checkpoint_that_was_trained_on_the_measured_images_says_so(
    small: Callable[..., Config], tmp_path: Path
) -> None:
    """The splits of the training are those of the evaluation, the other way round."""
    folder = tmp_path / "images"
    synthetic.write(folder, classes=4, train_per_class=10, valid_per_class=10, seed=3)
    named = {"dataset__name": str(folder), "evaluation__checkpoint": str(tmp_path / "a.ckpt")}
    swapped = small(**named, dataset__split__train="valid", dataset__split__valid="train")
    for split in ("test", "val"):
        _, result = evaluated(small(**named, evaluation__split=split), decoded(swapped))
        assert result["leak"].startswith(f"of the 20 {split} examples, 20 were trained on and 0 chose")


@pytest.mark.parametrize("trained", ["alike", "smaller", "other images", "not decoded", "no config", "nonsense"])
def test_images_that_are_new_to_the_network_need_no_warning(
    small: Callable[..., Config], tmp_path: Path, trained: str
) -> None:
    configs: dict[str, dict[str, Any]] = {
        "alike": decoded(small()),
        "smaller": decoded(small(dataset__train_per_class=2, dataset__split__val=12)),
        "other images": decoded(small(dataset__synthetic_seed=5)),
        "not decoded": small(dataset__synthetic_seed=6).to_dict(),
        "no config": {},
        "nonsense": {"dataset": {"name": ["x"]}},
    }
    _, result = evaluated(small(evaluation__checkpoint=str(tmp_path / "a.ckpt")), configs[trained])
    assert (result["leak"], result["n"]) == (None, 20)


def decoded(config: Config) -> dict[str, Any]:
    prepare(config)
    return config.to_dict()


@pytest.mark.parametrize("failing", ["confusion", "confused_pairs", "all"])
def test_no_figure_loses_a_result(
    small: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failing: str,
) -> None:
    save = evaluation_figures.save_figure

    def fail(figure: Figure, path: Path) -> Path:
        if failing in ("all", path.stem):
            raise ValueError("Unknown symbol")
        return save(figure, path)

    monkeypatch.setattr(evaluation_figures, "save_figure", fail)
    sweep, result = evaluated(small(evaluation__checkpoint=str(tmp_path / "a.ckpt")), {})
    (run,) = sweep.runs()
    assert result["n"] == 20
    assert run.evaluation_file.is_file()
    assert sum(run.figure(name).is_file() for name in FIGURES) == (0 if failing == "all" else 2)
    assert "cannot be drawn: ValueError: Unknown symbol" in capsys.readouterr().err
    work_of(sweep.kind).show(sweep, small().paths, answer_of_sweep(sweep))
    assert "per_class.csv" in capsys.readouterr().out
