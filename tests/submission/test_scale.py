"""What makes thousands of cells fast changes nothing of what is made; the calls do not grow with the cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc.submission.launching import launch
from relay.config import yaml_file
from relay.errors import ConfigError
from relay.runs.sweeps import open_sweep
from src.config.keys import TRAINING, content_key
from src.config.loading import Variants, config_of, make_config
from src.config.schema import Config
from src.requests import grid_request
from src.requests.cells import expand_grid
from tests.benchmarks.scale import FakeSite, imports_torch
from tests.conftest import ROOT, run_python

# Values that are equal and not the same, null sections, whole sections, lists.
MANY_KINDS: dict[str, list[Any]] = {
    "weight_decay": [0, 1e-5, 3e-4],
    "train.scheduler.warmup_steps": [0, 1],
    "batch_norm": [False, True],
    "augment.random_crop": [None, {"size": 16, "padding": 1}],
    "model.hidden_sizes": [None, [8], [8, 4]],
    "optimizer": ["sgd", "adamw"],
}
NAMES = ["3e-4", "null", "a: b # c", " x ", "ü\u2028\U0001f600", "one\ntwo\n", "|", "y" * 150, "a word " * 30, "", "-"]


@pytest.mark.parametrize("axes", [MANY_KINDS, {"weight_decay": [0.0, -0.0], "dataset.name": NAMES}])
def test_a_cell_is_what_the_whole_configuration_would_be(small: Callable[..., Config], axes: dict[str, Any]) -> None:
    config = small(hparams={"epochs": 5, **axes}, dataset__source="synthetic")
    base = {**config.to_dict(), "hparams": {}}
    plan = expand_grid(config)
    for cell in plan.cells:
        whole = make_config(base, "hparams", cell.overrides)
        assert repr(plan.configs[cell.name]) == repr(whole)
        assert cell.key == content_key(whole, TRAINING)


@pytest.mark.parametrize("axes", [MANY_KINDS, {"weight_decay": [0.0, -0.0], "dataset.name": NAMES}])
def test_the_text_of_a_cell_is_that_of_the_whole_configuration(
    small: Callable[..., Config], axes: dict[str, Any]
) -> None:
    request = grid_request(small(hparams=axes, dataset__source="synthetic"))
    sweep, _ = open_sweep(request)
    for cell, run in zip(request.cells, sweep.runs(), strict=True):
        assert run.config_file.read_text(encoding="utf-8") == yaml_file.dump_yaml(config_of(run).to_dict())
        assert run.config_file.read_text(encoding="utf-8") == cell.config


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.seed": 1.0},
        {"train.seed": True},
        {"train.seed": "1"},
        {"train.optimizer.lr": float("nan")},
        {"train.optimizer.lrr": 0.1, "model.dropout": 2},
        {"model.num_modules": 12},
        {"dataset.split.val": "train"},
        {"trian.seed": 1},
        {"augment.random_crop": {"size": 8}},
    ],
)
def test_a_variant_is_refused_as_the_whole_configuration_is(
    small: Callable[..., Config], overrides: dict[str, Any]
) -> None:
    config = small()
    variants = Variants(config, "hparams")
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            variants.make(overrides)
        with pytest.raises(ConfigError) as expected:
            make_config({**config.to_dict(), "hparams": {}}, "hparams", overrides)
        assert str(caught.value) == str(expected.value)
    assert variants.make({"train.seed": 1}).train.seed == 1


def test_slurm_is_called_as_often_for_many_cells_as_for_few(
    small: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    site = FakeSite(tmp_path / "site", max_array_size=5)
    monkeypatch.setenv("PATH", site.environment()["PATH"])
    monkeypatch.delenv("SLURM_CONF", raising=False)
    for cells, arrays in ((2, 1), (5, 1), (12, 3)):
        config = small(hparams={"seed": list(range(cells))})
        launch(grid_request(config), "h100-mig")
        assert site.take_calls() == {"sinfo": 1, "scontrol": 1, "sbatch": arrays, "squeue": arrays}
        launch(grid_request(config), "h100-mig")
        assert site.take_calls() == {"sinfo": 1, "scontrol": 1, "squeue": 1}


def test_status_asks_once_and_imports_no_torch(
    small: Callable[..., Config], small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    site = FakeSite(tmp_path / "site", max_array_size=3)
    monkeypatch.setenv("PATH", site.environment()["PATH"])
    monkeypatch.delenv("SLURM_CONF", raising=False)
    launch(grid_request(small()), "h100-mig")
    site.take_calls()
    env = {"PYTHONPROFILEIMPORTTIME": "1"}
    for words in (["status", "--config", str(small_file)], ["status", "--help"]):
        done = run_python("hpc.launch", *words, env=env)
        assert done.returncode == 0, done.stderr
        assert "typer" in done.stderr
        assert not imports_torch(done.stderr)
    assert site.take_calls() == {"squeue": 1}
    assert imports_torch(run_python("src.training.trainer", env=env).stderr)
