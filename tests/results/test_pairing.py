"""Two runs or two sweeps, compared on demand: what is compared, its verdict, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc import aggregate
from relay.config.yaml_file import dump_yaml
from relay.errors import RunError
from relay.results.pairing import differences_of_configs
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request
from tests.benchmarks.simulation import sweep_of
from tests.results.statistics.test_best_set import Trained
from tests.results.test_collection import finish

Ask = Callable[..., dict[str, Any]]
Make = Callable[..., SweepDir]
RATES = {"lr": [0.001, 0.01], "seed": [1, 2, 3]}


@pytest.fixture
def make(small: Callable[..., Config], tmp_path: Path) -> Make:
    """A function that makes a sweep whose settings have these true accuracies."""

    def made(truths: list[float], hparams: dict[str, Any], images: int = 600, **overrides: Any) -> SweepDir:
        config = small(hparams=hparams, **overrides)
        (tmp_path / "config.yaml").write_text(dump_yaml(config.to_dict()))
        sweep, _ = open_sweep(grid_request(config))
        seeds = len(hparams.get("seed", [0]))
        trained = Trained(sweep_of(np.random.default_rng(0), truths, images, seeds=seeds, sd=0.01))
        for number, run in enumerate(sweep.runs()):
            finish(run, trained, number)
        return sweep

    return made


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """A function that compares two by name, and returns the JSON."""

    def asked(*names: str, **options: Any) -> dict[str, Any]:
        config = str(tmp_path / "config.yaml")
        aggregate.main(list(names), config=config, as_pair=True, as_json=True, **options)
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return asked


def test_sweeps_with_equal_settings_are_compared_setting_by_setting(make: Make, ask: Ask) -> None:
    one = make([0.6, 0.9], RATES)
    other = make([0.6, 0.5], RATES, train__optimizer__weight_decay=0.03)
    found = ask(one.name, other.name)
    assert (found["compared"], found["scope"]) == ("settings", "settings")
    better, same = found["rows"]
    assert (better["lr"], same["lr"]) == (0.01, 0.001)
    assert same["low"] < 0 < same["high"]
    assert 0.3 < better["low"] < better["difference"] < better["high"] < 0.5
    assert better["difference"] == pytest.approx(better["a"] - better["b"])
    assert "2 that both have: 1 differ from 0, 1 cannot be told from 0 for these settings" in found["sentences"][0]
    assert found["configuration"] == [{"key": "train.optimizer.weight_decay", "a": 1e-5, "b": 0.03}]
    swapped = next(row for row in ask(other.name, one.name)["rows"] if row["lr"] == 0.01)
    assert swapped["low"] == pytest.approx(-better["high"])


def test_sweeps_with_other_settings_are_compared_by_the_leading_ones(make: Make, ask: Ask) -> None:
    one = make([0.6, 0.9], RATES)
    other = make([0.5, 0.7], {"lr": [0.001, 0.02], "seed": [1, 2, 3]})
    found = ask(one.name, other.name)
    assert found["compared"] == "leading"
    assert 0.1 < found["rows"][0]["low"] < 0.2 < found["rows"][0]["high"] < 0.3
    (sentence,) = found["sentences"]
    assert "differs from 0 for the two settings" in sentence
    assert "both were selected for their values" in sentence


def test_runs_are_compared_as_two_networks(
    make: Make, ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make([0.6, 0.9], RATES)
    first, last = sweep.runs()[0], sweep.runs()[-1]
    found = ask(last.label, first.label)
    assert (found["compared"], found["scope"]) == ("runs", "networks")
    assert found["rows"][0]["low"] > 0
    assert {row["key"]: (row["a"], row["b"]) for row in found["configuration"]} == {
        "train.optimizer.lr": (0.01, 0.001),
        "train.seed": (3, 1),
    }
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    aggregate.main([last.label, first.label], config=str(tmp_path / "config.yaml"), as_pair=True)
    shown = capsys.readouterr().out
    assert f"A: {last.label}\nB: {first.label}\nCompared: the two runs. A minus B: val/accuracy +0." in shown
    assert "train.optimizer.lr" in shown
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_cannot_be_paired_is_refused(make: Make, ask: Ask) -> None:
    sweep = make([0.6, 0.9], RATES)
    fewer = make([0.6, 0.9], RATES, images=300, train__optimizer__weight_decay=0.03)
    first, second, third, *_ = sweep.runs()
    with pytest.raises(RunError, match=r"\(600 images\) and .* \(300 images\) were measured on different images"):
        ask(sweep.name, fewer.name)
    with pytest.raises(RunError, match="both are"):
        ask(first.label, first.label)
    with pytest.raises(RunError, match=r"is a sweep of 6 runs; name one of them"):
        ask(first.label, fewer.name)
    with pytest.raises(RunError, match="1 were named: give A and B"):
        ask(sweep.name)
    with pytest.raises(RunError, match="leave out --sort, --top"):
        ask(sweep.name, fewer.name, sort="lr", top=1)
    with pytest.raises(RunError, match="--metric epochs is not a metric in its table"):
        ask(first.label, second.label, metric="epochs")
    second.result_file.unlink()
    with pytest.raises(RunError, match=f"{second.name} has no finished result in val/accuracy"):
        ask(first.label, second.label)
    third.predictions_file.unlink()
    with pytest.raises(RunError, match=f"{third.name} has no predictions.npz"):
        ask(first.label, third.label)


def test_the_configurations_differ_where_a_value_or_a_key_does() -> None:
    own = {"a": {"b": 1, "c": [1, 2]}, "d": None, "paths": {"runs_dir": "x"}, "e": {}}
    theirs = {"a": {"b": 2, "c": [1, 2]}, "paths": {"runs_dir": "y"}, "e": {"f": 0}}
    assert differences_of_configs(own, theirs) == [
        {"key": "a.b", "a": 1, "b": 2},
        {"key": "e", "a": {}, "b": None},
        {"key": "e.f", "a": None, "b": 0},
    ]
