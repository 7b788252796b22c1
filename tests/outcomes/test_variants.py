"""The base and its variants: planned, reused, compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpc.works import work_of
from relay.errors import ConfigError
from relay.files import append_lines
from relay.progress import PlainReporter
from relay.results.collection import answer_of_sweep
from relay.results.improvement import improvement
from relay.runs.environment import computing_versions
from relay.runs.lifecycle import attempt
from relay.runs.predictions import Predictions, write_predictions
from relay.runs.reuse import reuse_finished
from relay.runs.rundir import RunDir
from relay.runs.sweeps import Request, open_sweep
from src.config.loading import load_config
from src.config.schema import Config
from src.requests import compare_request, grid_request, train_request
from src.training.trainer import train
from tests.conftest import ROOT
from tests.results.tables.test_table import finish

VARIANTS = {"low": {"train.optimizer.lr": 1e-4}, "deep": {"set": {"num_modules": 3}, "expect": "a lower train loss"}}


def with_data(request: Request) -> Request:
    return replace(request, data={cell.name: "images" for cell in request.cells})


def predict(run: RunDir, hits: int) -> None:
    right = np.arange(20) < hits
    zeros = np.zeros(20, dtype=np.int64)
    loss = np.where(right, 0.5, 1.5)
    content = Predictions(zeros, (~right).astype(np.int64), np.full(20, 0.5), loss, np.full(20, True), "images")
    write_predictions(run.predictions_file, content, lambda: None)


def finished(run: RunDir, hits: int, *environments: dict[str, str]) -> None:
    append_lines(run.metrics_file, [{"step": 6, "epoch": 2.0, "time": 0.5, "train/loss_epoch": 0.5}])
    predict(run, hits)
    finish(run, hits / 20, 1.5 - hits / 20)
    here = {**computing_versions(), "device": "cpu", "cpu": "EPYC 7763"}
    run.write_result({**(run.result() or {}), "environments": [{**here, **each} for each in environments or ({},)]})
    run.checkpoints.mkdir(exist_ok=True)
    run.best_file.write_bytes(b"weights")


def test_a_finished_training_is_reused_and_no_step_is_trained(small: Callable[..., Config]) -> None:
    config = small(compare={"variants": VARIANTS})
    training = open_sweep(with_data(train_request(config)))[0].runs()[0]
    finished(training, 10)
    sweep, _ = open_sweep(with_data(compare_request(config)))
    assert [run.name for run in reuse_finished(sweep)] == ["base"]
    base, low, deep = sweep.runs()
    assert base.result() == {**(training.result() or {}), "reused_from": training.label}
    assert base.attempts() == ()
    assert base.best_file.read_bytes() == b"weights"
    assert base.metrics() == training.metrics()
    assert (low.is_done(), deep.is_done()) == (False, False)
    assert reuse_finished(sweep) == []


def test_other_images_or_removed_weights_are_not_reused(small: Callable[..., Config]) -> None:
    config = small(compare={"variants": VARIANTS})
    training = open_sweep(with_data(train_request(config)))[0].runs()[0]
    finished(training, 10)
    other = replace(compare_request(config), data=dict.fromkeys(("base", "low", "deep"), "other images"))
    assert reuse_finished(open_sweep(other)[0]) == []
    training.best_file.unlink()
    same, _ = open_sweep(with_data(compare_request(config)), fresh=True)
    assert reuse_finished(same) == []


@pytest.mark.parametrize(
    ("environments", "reason"),
    [
        ([{"torch": "1.9.0"}], "was trained under other versions (torch 1.9.0 -> "),
        ([{"numpy": "1.0"}], "was trained under other versions (numpy 1.0 -> "),
        ([{"python": "3.8.1"}], "was trained under other versions (python 3.8.1 -> "),
        ([{}, {"cpu": "Xeon 8480"}], "was resumed under cpu EPYC 7763 -> Xeon 8480"),
        ([{}, {"MKL_CBWR": "AVX"}], "was resumed under MKL_CBWR none -> AVX"),
    ],
)
def test_a_training_under_other_versions_or_in_two_environments_is_not_the_same(
    small: Callable[..., Config],
    capsys: pytest.CaptureFixture[str],
    environments: list[dict[str, str]],
    reason: str,
) -> None:
    config = small(compare={"variants": VARIANTS})
    older = open_sweep(with_data(train_request(config)))[0].runs()[0]
    finished(older, 10)
    newer = open_sweep(with_data(train_request(config)), fresh=True)[0].runs()[0]
    finished(newer, 12, *environments)
    sweep, _ = open_sweep(with_data(compare_request(config)))
    assert [run.name for run in reuse_finished(sweep)] == ["base"]
    said = capsys.readouterr().err
    assert f"base: does not reuse {newer.label}, which {reason}" in said
    assert f"base: reuses {older.label}, which is the same run, on EPYC 7763" in said


def test_variants_that_were_trained_on_another_device_say_so(small: Callable[..., Config]) -> None:
    config = small(compare={"variants": VARIANTS})
    sweep, _ = open_sweep(compare_request(config))
    gpu = {"device": "cuda", "gpu": "NVIDIA H100"}
    for run, environment in zip(sweep.runs(), ({}, gpu, {"MKL_CBWR": "AVX"}), strict=True):
        finished(run, 10, environment)
    work_of(sweep.kind).show(sweep, config.paths, answer_of_sweep(sweep))
    base, low, deep = json.loads(sweep.results_file("compare.json").read_text())["rows"]
    assert base["environment"] is None
    assert low["environment"] == "differs from base: device cpu -> cuda; gpu none -> NVIDIA H100"
    assert deep["environment"] == "differs from base: MKL_CBWR none -> AVX"
    for name in ("compare.csv", "compare.md"):
        assert low["environment"] in sweep.results_file(name).read_text()


def test_variants_are_compared_with_what_was_expected(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(compare={"variants": VARIANTS})
    sweep, _ = open_sweep(compare_request(config))
    for run, hits in zip(sweep.runs(), (18, 4, 17), strict=True):
        finished(run, hits)
    work_of(sweep.kind).show(sweep, config.paths, answer_of_sweep(sweep))
    said = capsys.readouterr().out
    assert "expected: a lower train loss" in said
    base, low, deep = json.loads(sweep.results_file("compare.json").read_text())["rows"]
    assert base["seen"] is None
    assert low["difference"] == pytest.approx(-0.7)
    assert (low["crossed"], low["estimate"]) == (False, pytest.approx(-0.7))
    assert "differs from 0 for these two networks on new data; another seed may change it" in low["seen"]
    assert "val/accuracy -0.0500 (95" in deep["seen"]
    assert "both for 2 variants together): cannot be told from 0" in deep["seen"]
    assert "val/loss +0.0500;" in deep["seen"]
    assert base["p_adjusted"] is None
    for name in ("compare.csv", "compare.md", "compare.json", "compare.png"):
        copied = Path(config.paths.artifacts_dir) / f"{sweep.name}_{name}"
        assert copied.read_bytes() == sweep.results_file(name).read_bytes()


def test_variants_on_other_images_are_not_paired(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """The labels of all of them are equal: as many images of each class, class by class."""
    others = {
        "data": {"dataset.synthetic_seed": 5},
        "split": {"dataset.split.seed": 7},
        "fewer": {"dataset.split.val": 16},
        "more": {"dataset.synthetic_valid_per_class": 12},
    }
    variants = {"rate": {"lr": 1e-4}, "train": {"dataset.train_per_class": 12}, **others}
    config = small(compare={"variants": variants}, train__max_steps=2)
    sweep, _ = open_sweep(compare_request(config))
    for run in sweep.runs():
        attempt(run, train, lambda: False, PlainReporter())
    work_of(sweep.kind).show(sweep, config.paths, answer_of_sweep(sweep))
    rows = {row["run"]: row for row in json.loads(sweep.results_file("compare.json").read_text())["rows"]}
    assert {name: row["paired"] for name, row in rows.items()} == {
        **{"base": None, "rate": True, "train": True},
        **dict.fromkeys(others, False),
    }
    for name, row in rows.items():
        assert (row["p_adjusted"] is None) == (name == "base")
        assert name == "base" or row["low"] < row["difference"] < row["high"]
        assert name == "base" or row["loss_low"] < row["loss_difference"] < row["loss_high"]
        assert ("different examples, so the intervals are not paired" in (row["seen"] or "")) == (name in others)
    assert capsys.readouterr().out.count("not paired") == len(others)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("{a: {train.optimizer.lrr: 1.0}}", "a: unknown key path train.optimizer.lrr; did you mean"),
        ("{a: {train.optimizer.lr: fast}}", "a: train.optimizer.lr: 'fast' is not allowed"),
        ("{a: {train.optimizer.lr: 0.002}}", "a: is the same training as base"),
        ("{base: {lr: 0.1}}", "'base' is the name of the training"),
        ("{a: {lr: 0.1, train.optimizer.lr: 0.2}}", "a: sets train.optimizer.lr twice"),
    ],
)
def test_a_wrong_variant_is_refused_with_one_message(small_file: Path, variants: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(small_file, [f"compare.variants={variants}"])
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 2


def test_the_reports_comparisons_are_ready_to_run() -> None:
    request = compare_request(load_config(ROOT / "configs" / "compare.yaml"))
    report = train_request(load_config(ROOT / "configs" / "config.yaml"))
    assert request.cells[0].name == "base"
    assert len(request.cells) == 5
    assert request.cells[0].key == report.cells[0].key


def test_a_refined_grid_has_a_line_against_the_first(small: Callable[..., Config]) -> None:
    config = small()
    first, _ = open_sweep(grid_request(config))
    for run in first.runs():
        finished(run, 10)
    refined, _ = open_sweep(grid_request(config, refined=1))
    finished(refined.runs()[0], 12)
    found = improvement(refined, answer_of_sweep(refined), first, answer_of_sweep(first))
    assert found is not None
    assert found["difference"] == pytest.approx(0.1)
    assert found["low"] < 0.1 < found["high"]
    assert "cannot be told from 0 for these two networks on new data" in found["sentence"]
    assert "another seed may change it, and both were selected for their values" in found["sentence"]
