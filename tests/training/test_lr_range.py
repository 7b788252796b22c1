from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import lr_sweep
from relay.files import read_lines
from relay.progress import PlainReporter
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.loading import config_of
from src.config.schema import Config, LrFinder
from src.requests import lr_sweep_request
from src.training.learner import Learner
from src.training.lr_range import rate_at, smooth, suggest
from tests.training.test_trainer import NEVER, StopAfter


def runs_of(config: Config) -> list[RunDir]:
    return open_sweep(lr_sweep_request(config), fresh=True)[0].runs()


def execute(run: RunDir, questions: int = NEVER) -> str:
    return lr_sweep.execute(run, StopAfter(questions), PlainReporter()).status


def test_rates_are_even_on_the_log_scale() -> None:
    finder = LrFinder(min_lr=1e-6, max_lr=1.0, num_steps=13)
    rates = [rate_at(finder, step) for step in range(13)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[-1] == pytest.approx(1.0)
    assert [rates[i + 1] / rates[i] for i in range(12)] == pytest.approx([math.sqrt(10)] * 12)


def test_smoothing_is_unbiased() -> None:
    assert smooth([3.0] * 5, 0.9) == pytest.approx([3.0] * 5)
    assert smooth([1.0, 3.0], 0.5) == pytest.approx([1.0, (0.25 * 1 + 0.5 * 3) / 0.75])


def test_suggestions_on_a_curve_whose_answer_is_known() -> None:
    """Flat at 4 until 1e-4, a steep fall whose middle is at 1e-3, flat until 1e-1, then up."""
    rates = [10 ** (-6 + step / 20) for step in range(120)]
    losses = [4 - 3 / (1 + math.exp(-6 * (math.log10(r) + 3))) + max(0.0, 5 * (math.log10(r) + 1)) for r in rates]
    suggestion = suggest(rates, losses)
    assert suggestion["steepest"] == pytest.approx(1e-3, rel=0.15)
    assert suggestion["valley"] is not None
    assert 1e-4 < suggestion["valley"] < 1e-1


def test_no_suggestion_if_the_loss_never_falls() -> None:
    assert suggest([1e-3, 1e-2, 1e-1, 1.0], [1.0, 2.0, 3.0, 4.0]) == {"steepest": None, "valley": None}


def test_a_sweep_leaves_figure_json_and_scalars_and_no_checkpoint(small: Callable[..., Config]) -> None:
    config = small()
    artifacts = Path(config.paths.artifacts_dir)
    artifacts.mkdir(parents=True)
    (artifacts / "best.ckpt").write_bytes(b"somebody's")
    run = runs_of(config)[0]
    assert execute(run) == "done"
    rows = read_lines(run.metrics_file)
    assert [row["train/lr"] for row in rows] == pytest.approx([rate_at(config.lr_finder, s) for s in range(len(rows))])
    assert all(math.isfinite(row["train/loss"]) for row in rows)
    exported = artifacts / f"{run.sweep().name}_{run.name}"
    assert Path(f"{exported}.png").read_bytes().startswith(b"\x89PNG")
    assert set(json.loads(Path(f"{exported}.json").read_text())["suggestion"]) == {"steepest", "valley"}
    assert (artifacts / "best.ckpt").read_bytes() == b"somebody's"
    assert not list(run.path.rglob("*.ckpt"))


def without_memory(run: RunDir) -> dict[str, Any]:
    """The result of a run without the memory that its process took."""
    return {name: value for name, value in (run.result() or {}).items() if name not in ("host_mb", "gpu_mb")}


@pytest.mark.parametrize("stops", [[0], [7], [5, 5, 5]])
def test_a_stopped_sweep_resumes_exactly(small: Callable[..., Config], tmp_path: Path, stops: list[int]) -> None:
    whole, broken = (runs_of(small(paths__runs_dir=str(tmp_path / name)))[0] for name in ("whole", "broken"))
    assert execute(whole) == "done"
    for questions in stops:
        assert execute(broken, questions) == "stopped"
    assert execute(broken) == "done"
    assert without_memory(whole) == without_memory(broken)
    assert not list(broken.path.rglob("*.ckpt"))


def test_a_sweep_does_not_resume_from_the_state_of_another_experiment(
    small: Callable[..., Config], tmp_path: Path
) -> None:
    whole, mixed = (runs_of(small(paths__runs_dir=str(tmp_path / name)))[0] for name in ("whole", "mixed"))
    other = runs_of(small(paths__runs_dir=str(tmp_path / "other"), train__optimizer__lr=0.5, train__seed=7))[0]
    assert execute(whole) == "done"
    assert execute(other, 5) == "stopped"
    shutil.copytree(other.checkpoints, mixed.checkpoints)
    assert execute(mixed) == "done"
    assert without_memory(mixed) == without_memory(whole)


def test_divergence_ends_the_sweep(small: Callable[..., Config]) -> None:
    changes = {
        "lr_finder": {"num_steps": 80, "min_lr": 0.1, "max_lr": 1e6},
        "train.optimizer": {"name": "sgd"},
        "model.batch_norm": False,
    }
    run = runs_of(small(**changes))[0]
    assert execute(run) == "done"
    result = run.result()
    assert result is not None
    assert result["diverged"]
    assert result["steps"] < 80


def test_a_sweep_whose_first_loss_is_nan_suggests_nothing(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = torch.tensor(float("nan"))
    monkeypatch.setattr(Learner, "step", lambda *given: (nan, None, None))
    run = runs_of(small())[0]
    assert execute(run) == "done"
    result = run.result()
    assert result is not None
    assert result["suggestion"] == {"steepest": None, "valley": None}
    assert (result["steps"], result["diverged"]) == (1, True)
    assert run.figure("lr_finder").is_file()


def test_a_run_for_each_seed(small: Callable[..., Config]) -> None:
    runs = runs_of(small(**{"lr_finder.seeds": [1, 2]}))
    assert [run.name for run in runs] == ["seed=1", "seed=2"]
    assert [config_of(run).train.seed for run in runs] == [1, 2]
