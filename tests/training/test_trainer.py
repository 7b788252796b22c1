from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.train import execute as train_and_export
from relay.errors import CheckpointError, RunError
from relay.files import read_lines
from relay.program.serialization import to_bytes
from relay.program.states import list_states, newest_step, state_name
from relay.progress import PlainReporter
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import train_request
from src.training import trainer
from src.training.trainer import train
from tests.conftest import assert_same_run, small_config
from tests.fork_server import fork_server

NEVER = 10**9
BEST_EARLY_SEED = 3


class StopAfter:
    """A `should_stop` that returns true from the n-th call on."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def new_run(config: Config) -> RunDir:
    return open_sweep(train_request(config), fresh=True)[0].runs()[0]


def execute(run: RunDir, questions: int = NEVER) -> str:
    return train(run, StopAfter(questions), PlainReporter()).status


@pytest.fixture(scope="module")
def straight(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """An uninterrupted run: 3 epochs of 6 steps. Tests must not change it."""
    run = new_run(small_config(data_root, tmp_path_factory.mktemp("straight")))
    assert execute(run) == "done"
    return run


def test_a_run_ends_with_everything_in_its_directory(straight: RunDir) -> None:
    result = straight.result()
    assert result is not None
    assert result["steps"] == 18
    assert result["epochs"] == 3
    rows = read_lines(straight.metrics_file)
    assert [row["step"] for row in rows if "train/loss" in row] == [4, 6, 8, 12, 16, 18]
    assert [row["step"] for row in rows if "val/accuracy" in row] == [6, 12, 18]
    assert {"train/lr", "train/images_per_s", "train/loss"} <= rows[0].keys()
    best = max((row for row in rows if "val/accuracy" in row), key=lambda row: (row["val/accuracy"], -row["step"]))
    assert result["best"]["accuracy"] == best["val/accuracy"]
    assert result["best"]["step"] == best["step"]
    assert torch.load(straight.best_file, weights_only=True)["metrics"]["step"] == best["step"]
    assert [path.name[:14] for path in list_states(straight.checkpoints)] == ["step_000000018"]


# should_stop is called before every step, and once per batch of each evaluation.
@pytest.mark.parametrize(
    "stops", [[0], [1], [5], [6], [7], [8], [9], [3, 3, 3], [1] * 12, [8, 8], [20], [0, 0, 7, 0, 2]]
)
def test_a_stopped_run_ends_like_an_uninterrupted_one(
    straight: RunDir, small: Callable[..., Config], tmp_path: Path, stops: list[int]
) -> None:
    run = new_run(small(paths__runs_dir=str(tmp_path / "other")))
    for questions in stops:
        assert execute(run, questions) == "stopped"
    assert execute(run) == "done"
    assert_same_run(straight, run)


@pytest.mark.parametrize(
    "changes",
    [
        {"train.optimizer": {"name": "sgd", "lr": 0.05}, "train.scheduler": {"name": "onecycle", "warmup_steps": 2}},
        {"train.optimizer": {"name": "adamw"}, "train.scheduler": {"name": "cosine"}, "dataset.shuffle": False},
        {
            "train.optimizer": {"name": "rmsprop"},
            "train.scheduler": {"name": "step", "step_size": 1},
            "model.batch_norm": False,
        },
        {"train.max_steps": 10, "train.batch_size": 7, "checkpoint.every_steps": 3, "model.residual": True},
        {"train.overfit_small": True, "train.overfit_size": 20, "train.overfit_epochs": 6},
        {"model.type": "residual_cnn", "model.num_modules": 3, "model.hidden_sizes": [8]},
    ],
)
def test_every_kind_of_run_resumes_exactly(
    small: Callable[..., Config], tmp_path: Path, changes: dict[str, object]
) -> None:
    whole, broken = (new_run(small(**changes, paths__runs_dir=str(tmp_path / name))) for name in ("whole", "broken"))
    assert execute(whole) == "done"
    assert execute(broken, 4) == "stopped"
    assert execute(broken, 3) == "stopped"
    assert execute(broken) == "done"
    if "train.overfit_small" in changes:
        assert not broken.best_file.exists()
        broken.best_file.write_bytes(b"")
        torch.save({"model_state_dict": {}}, broken.best_file)
        torch.save({"model_state_dict": {}}, whole.best_file)
    assert_same_run(whole, broken)


def test_work_after_the_restored_state_is_repeated_without_a_trace(
    straight: RunDir, small: Callable[..., Config], tmp_path: Path
) -> None:
    """After a kill, rows and best weights from after the restored state must not remain."""
    run = new_run(small(checkpoint__every_steps=5, paths__runs_dir=str(tmp_path / "other")))
    assert execute(run, 17) == "stopped"
    newest, before = list_states(run.checkpoints)[:2]
    newest.unlink()
    assert newest_step(run.checkpoints) == int(before.name[5:14])
    assert execute(run) == "done"
    assert_same_run(straight, run)


def test_a_damaged_state_costs_steps_and_nothing_else(
    straight: RunDir, small: Callable[..., Config], tmp_path: Path
) -> None:
    run = new_run(small(checkpoint__every_steps=4, paths__runs_dir=str(tmp_path / "other")))
    assert execute(run, 14) == "stopped"
    for path in list_states(run.checkpoints):
        path.write_bytes(path.read_bytes()[:1000])
    assert execute(run) == "done"
    assert_same_run(straight, run)


def rewrite_newest(run: RunDir, change: Callable[[dict[str, Any]], Any]) -> None:
    """Replace the newest state by other content, under a name with the right checksum."""
    newest = list_states(run.checkpoints)[0]
    data = to_bytes(change(torch.load(newest, weights_only=True)))
    newest.unlink()
    newest.with_name(state_name(int(newest.name[5:14]), hashlib.sha256(data).hexdigest())).write_bytes(data)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda state: {},
    "no step": lambda state: {name: value for name, value in state.items() if name != "step"},
    "a text": lambda state: {**state, "losses": "x"},
    "no weights": lambda state: {**state, "model_state_dict": [1]},
    "no number of threads": lambda state: {**state, "threads": -1},
    "true threads": lambda state: {**state, "threads": True},
    "two sums": lambda state: {**state, "epoch_sums": [torch.zeros(()), 3]},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_state_of_another_shape_costs_steps_and_nothing_else(
    straight: RunDir, small: Callable[..., Config], tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    run = new_run(small(checkpoint__every_steps=4, paths__runs_dir=str(tmp_path / "other")))
    assert execute(run, 14) == "stopped"
    rewrite_newest(run, change)
    assert execute(run) == "done"
    assert_same_run(straight, run)


MISFITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "other weights": lambda state: {**state, "model_state_dict": {"x": torch.zeros(1)}},
    "no generator": lambda state: {**state, "random": {}},
    "no optimizer": lambda state: {**state, "optimizer": {}},
    "other rates": lambda state: {
        **state,
        "optimizer": {
            **state["optimizer"],
            "param_groups": [{**state["optimizer"]["param_groups"][0], "betas": "x"}],
        },
    },
    "other averages": lambda state: {
        **state,
        "optimizer": {
            **state["optimizer"],
            "state": {
                number: {name: value.flatten()[:1] for name, value in kept.items()}
                for number, kept in state["optimizer"]["state"].items()
            },
        },
    },
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_a_state_that_does_not_fit_is_named(
    small: Callable[..., Config], tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    run = new_run(small(checkpoint__every_steps=4, paths__runs_dir=str(tmp_path / "other")))
    assert execute(run, 5) == "stopped"
    rewrite_newest(run, change)
    with pytest.raises(
        CheckpointError, match=r"checkpoints: the state of step \d+ does not fit the run: .*remove its file"
    ):
        execute(run)


def test_after_lost_rows_the_run_resumes_from_an_earlier_state(
    straight: RunDir, small: Callable[..., Config], tmp_path: Path
) -> None:
    run = new_run(small(checkpoint__every_steps=4, paths__runs_dir=str(tmp_path / "other")))
    assert execute(run, 14) == "stopped"
    run.metrics_file.write_bytes(run.metrics_file.read_bytes()[:40])
    assert execute(run) == "done"
    assert_same_run(straight, run)


def test_a_changed_config_is_refused_and_nothing_is_lost(
    straight: RunDir, small: Callable[..., Config], tmp_path: Path
) -> None:
    run = new_run(small(paths__runs_dir=str(tmp_path / "other")))
    assert execute(run, 9) == "stopped"
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("lr: 0.002", "lr: 0.003"))
    with pytest.raises(RunError, match=r"config\.yaml: differs from the planned one; remove it"):
        execute(run)
    # A copy outside its sweep has no manifest: only its states show the change.
    with pytest.raises(CheckpointError, match=r"states are of another configuration than config\.yaml; restore it"):
        execute(RunDir(shutil.copytree(run.path, tmp_path / "alone")))
    run.config_file.write_text(text)
    assert execute(run) == "done"
    assert_same_run(straight, run)


def test_artifacts_are_exported_before_the_run_is_done(small: Callable[..., Config], tmp_path: Path) -> None:
    run = new_run(small(paths__artifacts_dir=str(tmp_path / "file" / "artifacts")))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"set paths\.artifacts_dir"):
        train_and_export(run, StopAfter(NEVER), PlainReporter())
    assert run.result() is None
    (tmp_path / "file").unlink()
    assert train_and_export(run, StopAfter(NEVER), PlainReporter()).status == "done"
    exported = tmp_path / "file" / "artifacts"
    assert (exported / "best.ckpt").read_bytes() == run.best_file.read_bytes()
    assert json.loads((exported / "best.json").read_text())["result"]["steps"] == 18


def test_a_diverging_run_ends_and_says_so(small: Callable[..., Config]) -> None:
    run = new_run(small(**{"train.optimizer": {"name": "sgd", "lr": 1e20}, "model.batch_norm": False}))
    assert execute(run) == "done"
    result = run.result()
    assert result is not None
    assert result["outcome"] == "diverged"
    assert result["best"] is None
    assert result["steps"] < 18


def test_weights_that_are_nan_after_the_last_step_are_a_divergence(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's loss is computed before its update: the last loss may be finite although the weights are not."""
    from relay.results.tables.table import read_table

    real = trainer.evaluate_split

    def without_loss(*given: Any) -> Any:
        measured = real(*given)
        return measured and ({**measured[0], "loss": float("nan")}, measured[1])

    monkeypatch.setattr(trainer, "evaluate_split", without_loss)
    run = new_run(small())
    assert execute(run) == "done"
    result = run.result()
    assert result is not None
    assert result["outcome"] == "diverged"
    assert result["best"] is None
    assert not run.best_file.exists()
    table = read_table(run.sweep())
    assert table.rows[0]["state"] == "diverged"
    assert table.best() is None


def test_weights_that_are_nan_are_evaluated_without_a_traceback(small: Callable[..., Config], tmp_path: Path) -> None:
    from relay.runs.lifecycle import attempt
    from relay.runs.sweeps import open_sweep
    from src.evaluation.evaluator import evaluate
    from src.models.registry import build_model
    from src.requests import evaluation_request

    weights = {name: tensor * float("nan") for name, tensor in build_model(small().model).state_dict().items()}
    torch.save({"model_state_dict": weights}, tmp_path / "nan.ckpt")
    request = evaluation_request(small(evaluation__checkpoint=str(tmp_path / "nan.ckpt")))
    run = open_sweep(request)[0].runs()[0]
    attempt(run, evaluate, lambda: False, PlainReporter())
    result = run.result()
    assert result is not None
    assert (result["outcome"], result["loss"]) == ("diverged", None)
    assert 0 <= result["accuracy"] <= 1


def test_overfitting_a_few_images_succeeds(small: Callable[..., Config]) -> None:
    changes = {
        "train.overfit_small": True,
        "train.overfit_size": 8,
        "train.overfit_epochs": 60,
        "train.optimizer.lr": 0.02,
        "model.dropout": 0.0,
    }
    run = new_run(small(**changes))
    assert execute(run) == "done"
    result = run.result()
    assert result is not None
    assert result["train"]["accuracy"] == 1.0
    assert result["train"]["loss"] < 0.1


def test_the_best_weights_so_far_are_restored(small: Callable[..., Config], tmp_path: Path) -> None:
    """An early epoch is the best one, and the interruptions follow it."""
    changes: dict[str, Any] = {"train.optimizer": {"name": "sgd", "lr": 0.5}, "train.epochs": 8}
    # Which seed has an early best epoch depends on how this CPU rounds.
    for seed in range(BEST_EARLY_SEED, BEST_EARLY_SEED + 20):
        changes["train.seed"] = seed
        whole = new_run(small(**changes, paths__runs_dir=str(tmp_path / f"whole-{seed}")))
        assert execute(whole) == "done"
        if (whole.result() or {})["best"]["epoch"] < 7:
            break
    else:
        pytest.fail("no seed has an early best epoch")
    broken = new_run(small(**changes, paths__runs_dir=str(tmp_path / "broken")))
    while execute(broken, 9) == "stopped":
        pass
    assert_same_run(whole, broken)


def test_the_first_state_is_saved_early_and_the_next_at_its_interval(
    straight: RunDir, small: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_FIRST_SAVE_S", 0.0)
    run = new_run(small(paths__runs_dir=str(tmp_path / "other")))
    seen: list[int] = []

    def die_after_nine_steps() -> bool:
        seen.append(newest_step(run.checkpoints))
        if len(seen) == 9:
            raise KeyboardInterrupt
        return False

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(run, die_after_nine_steps, PlainReporter())
        assert set(seen[1:]) == {seen[0] + 1}, "one state early in the attempt, the next one in 5 minutes"
        seen.clear()
    assert execute(run) == "done"
    assert_same_run(straight, run)


def test_another_seed_is_another_run(straight: RunDir, small: Callable[..., Config], tmp_path: Path) -> None:
    """The comparison that all these tests use can fail."""
    run = new_run(small(train__seed=7, paths__runs_dir=str(tmp_path / "other")))
    assert execute(run) == "done"
    with pytest.raises(AssertionError):
        assert_same_run(straight, run)


def test_kill_9_at_any_moment_costs_steps_and_nothing_else(
    straight: RunDir, small: Callable[..., Config], tmp_path: Path
) -> None:
    moments = random.Random(5)
    killed_at: list[int] = []
    runs = 0
    # On a fast machine, one run ends before it was killed often enough.
    while len(killed_at) < 5 or len(set(killed_at)) < 3:
        runs += 1
        assert runs < 50
        run = new_run(small(checkpoint__every_steps=1, paths__runs_dir=str(tmp_path / f"other-{runs}")))
        while run.result() is None:
            pid = fork_server().start(run=str(run.path))
            step, deadline = newest_step(run.checkpoints), time.monotonic() + 60
            while newest_step(run.checkpoints) == step and run.result() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(moments.random() * 0.08)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if fork_server().wait()[0] == -signal.SIGKILL:
                killed_at.append(newest_step(run.checkpoints))
            assert len(killed_at) < 500
        assert_same_run(straight, run)
