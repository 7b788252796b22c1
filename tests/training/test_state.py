from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import torch

from relay.program.states import list_states
from src.config.schema import Config
from src.training.state import TrainingState, state_problem
from tests.conftest import differences
from tests.training.test_trainer import execute, new_run

# The entries of a checkpoint of format 2.
FORMAT_2 = {
    *("format", "key", "total_steps", "model_state_dict", "optimizer", "random", "threads", "metrics_bytes"),
    "metrics_digest",
    *("step", "evaluated_step", "losses", "epoch_sums", "train", "last", "best", "best_weights", "train_seconds"),
    "diverged",
    *("best_predictions", "half_scores", "numerics", "environments"),
}


def state_in_use() -> TrainingState:
    """A state in which no field has its default."""
    state = TrainingState(
        evaluated_step=6,
        losses=[0.5],
        train={"loss": 1.5},
        last={"accuracy": 0.25},
        best={"step": 6, "accuracy": 0.25},
        best_weights={"weight": torch.ones(2)},
        best_predictions=torch.ones(2, dtype=torch.uint8),
        half_scores=[0.5, 0.25],
        train_seconds=1.25,
        diverged=True,
    )
    state.start_epoch(torch.device("cpu"))
    state.add_step(torch.tensor(2.0), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
    return state


def test_every_field_is_saved_and_restored() -> None:
    state, restored = state_in_use(), TrainingState()
    saved = state.state_dict()
    assert all(differences(saved[each.name], getattr(restored, each.name)) for each in fields(state))
    restored.load_state_dict(saved, torch.device("cpu"))
    assert differences(saved, restored.state_dict()) == []
    assert restored.epoch_means() == state.epoch_means() == {"loss_epoch": 2.0, "accuracy": 0.5}


def test_a_new_field_is_not_forgotten() -> None:
    @dataclass
    class Extended(TrainingState):
        added: int = 0

    saved, restored = Extended(added=3).state_dict(), Extended()
    restored.load_state_dict(saved, torch.device("cpu"))
    assert restored.added == 3


def test_a_checkpoint_holds_the_entries_of_its_format_and_none_may_be_missing(small: Callable[..., Config]) -> None:
    run = new_run(small())
    assert execute(run, 9) == "stopped"
    state = torch.load(list_states(run.checkpoints)[0], weights_only=True)
    assert state.keys() == FORMAT_2
    assert state["format"] == 2
    assert state_problem(state, training=True) == ""
    for name in FORMAT_2 - {"total_steps"}:
        without = {other: value for other, value in state.items() if other != name}
        assert name in state_problem(without, training=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", -1), ("step", 1.0), ("losses", [torch.zeros(2)]), ("best", {"step": "x"}), ("diverged", 1)],
)
def test_an_entry_of_another_type_is_named(small: Callable[..., Config], name: str, value: object) -> None:
    run = new_run(small(train__epochs=1))
    assert execute(run, 3) == "stopped"
    state = torch.load(list_states(run.checkpoints)[0], weights_only=True)
    assert name in state_problem({**state, name: value}, training=True)


def test_building_a_trainer_reads_no_checkpoint_and_writes_no_file(small: Callable[..., Config]) -> None:
    from relay.progress import PlainReporter
    from src.config.keys import TRAINING
    from src.training.session import Session
    from src.training.trainer import Trainer

    run = new_run(small())
    assert execute(run, 9) == "stopped"
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    trainer = Trainer(Session(run, TRAINING, lambda: False, PlainReporter(), lambda result: None))
    assert trainer.state.step == 0
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_state_that_is_deleted_while_states_are_listed_fails_nothing(tmp_path: Path) -> None:
    # A dangling link: it is listed, and is not there when it is looked at.
    (tmp_path / f"step_000000002-{'0' * 64}.ckpt").symlink_to(tmp_path / "deleted")
    (tmp_path / f"step_000000001-{'1' * 64}.ckpt").touch()
    assert [path.name[:14] for path in list_states(tmp_path)] == ["step_000000002", "step_000000001"]
