"""The run as a program sees it: what a resumed one repeats and restores, and what it refuses."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from relay.errors import CheckpointError, RelayError, RunError, TakenOverError
from relay.program.contract import Order
from relay.program.run import Run, Stopped
from relay.program.serialization import from_bytes
from relay.program.states import list_states, newest_step

Program = Callable[[Run], Any]


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., Order]:
    """Makes the order of an attempt at the run in this folder."""
    (tmp_path / "checkpoints").mkdir()

    def make(attempt: int = 1, **changes: Any) -> Order:
        files = {name: str(tmp_path / f"{name}.jsonl") for name in ("reports", "metrics")}
        given = {"function": "m:f", "params": {}, "label": "sweep/run", "key": "k", "token": "", "owner": ""}
        folders = {
            "root": str(tmp_path),
            "folder": str(tmp_path),
            "work": str(tmp_path),
            "checkpoints": str(tmp_path / "checkpoints"),
        }
        best = {"best": str(tmp_path / "best.ckpt"), "select": "val/loss", "direction": "min"}
        return Order(attempt=attempt, **{**given, **folders, **best, **files, "every_minutes": None, **changes})

    return make


def rows_of(order: Order) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(order.metrics).read_text().splitlines()]


def values_of(order: Order) -> list[dict[str, Any]]:
    """The rows without the clock's values."""
    return [{name: value for name, value in row.items() if name != "time"} for row in rows_of(order)]


def reports_of(order: Order) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(order.reports).read_text().splitlines()]


def attempt(order: Order, program: Program) -> bool:
    """Execute a program as relay/program/call.py does. Returns whether it was stopped."""
    run = Run(order)
    try:
        returned = program(run)
    except Stopped:
        returned = None
    run.end(returned)
    return run.was_stopped


def until(step: int | None, draw: Callable[[], float], total: int = 20) -> Program:
    """A program that adds what it draws, and is asked to stop within a step."""

    def program(run: Run) -> None:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        sums = {"x": 0.0}
        run.keep(sums=sums)
        for index in run.steps(total):
            sums["x"] += draw()
            run.log({"x": sums["x"]})
            if index == step:
                run.ask_to_stop()

    return program


DRAWS: dict[str, Callable[[], float]] = {
    "python": random.random,
    "gauss": lambda: random.gauss(0, 1),
    "numpy": lambda: float(np.random.normal()),
    "torch": lambda: float(torch.rand(())),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("stop", [0, 7, 18])
def test_a_resumed_run_has_the_rows_of_one_that_never_stopped(
    order: Callable[..., Order], tmp_path: Path, name: str, stop: int
) -> None:
    first = order()
    assert attempt(first, until(stop, DRAWS[name]))
    assert newest_step(Path(first.checkpoints)) == stop + 1
    assert attempt(order(2), until(None, DRAWS[name])) is False
    stopped = values_of(first)
    elsewhere = tmp_path / "straight"
    elsewhere.mkdir()
    straight = order(metrics=str(elsewhere / "m"), reports=str(elsewhere / "r"), checkpoints=str(elsewhere / "c"))
    assert attempt(straight, until(None, DRAWS[name])) is False
    assert stopped == values_of(straight)
    assert [row["step"] for row in stopped] == list(range(1, 21))


def test_what_was_logged_after_the_last_state_is_repeated_once(order: Callable[..., Order]) -> None:
    """As after kill -9: the program ends within a step, after its rows were written."""
    first = order(every_steps=4)

    def killed(run: Run) -> None:
        counted = {"n": 0}
        run.keep(counted=counted)
        for index in run.steps(10):
            counted["n"] += 1
            run.log({"n": counted["n"]})
            if index == 6:
                run._log.end_row()
                run._log.flush()
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(first, killed)
    assert [row["step"] for row in rows_of(first)] == [1, 2, 3, 4, 5, 6, 7]

    def whole(run: Run) -> None:
        assert run.step == 4
        counted = {"n": 0}
        run.keep(counted=counted)
        for _ in run.steps(10):
            counted["n"] += 1
            run.log({"n": counted["n"]})

    attempt(order(2), whole)
    assert [(row["step"], row["n"]) for row in rows_of(first)] == [(step, step) for step in range(1, 11)]


def test_networks_optimizers_and_generators_are_restored_exactly(order: Callable[..., Order]) -> None:
    generators = {"numpy": np.random.default_rng, "old": np.random.RandomState, "python": random.Random}

    def program(run: Run) -> tuple[Any, ...]:
        torch.manual_seed(run.attempt)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        own = {name: make(run.attempt) for name, make in generators.items()}
        own["torch"] = torch.Generator().manual_seed(run.attempt)
        run.keep(model=model, optimizer=optimizer, scheduler=scheduler, **own)
        for index in run.steps(6):
            x = torch.randn(4, 3, generator=own["torch"]) + own["numpy"].normal() + own["old"].normal()
            loss = model(x + own["python"].random()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            run.log({"loss": loss})
            if run.attempt == 1 and index == 2:
                run.ask_to_stop()
        return model.state_dict(), optimizer.state_dict()

    first, second = order(), order(2)
    attempt(first, program)
    found: list[Any] = []
    attempt(second, lambda run: found.append(program(run)))
    resumed = values_of(first)
    for path in list_states(Path(first.checkpoints)):
        path.unlink()
    straight: list[Any] = []
    attempt(order(), lambda run: straight.append(_without_stop(program, run)))
    assert values_of(first) == resumed
    for (name, mine), theirs in zip(found[0][0].items(), straight[0][0].values(), strict=True):
        assert torch.equal(mine, theirs), name
    assert str(found[0][1]) == str(straight[0][1])


def _without_stop(program: Callable[[Run], Any], run: Run) -> Any:
    run.ask_to_stop = lambda: None  # type: ignore[method-assign]
    return program(run)


def test_best_keeps_the_weights_of_the_best_row(order: Callable[..., Order]) -> None:
    losses = [3.0, math.nan, 1.0, 2.0, 1.0]

    def program(run: Run) -> None:
        model = nn.Linear(1, 1, bias=False)
        run.keep(model=model)
        for index in run.steps(5):
            with torch.no_grad():
                model.weight.fill_(index)
            run.log({"val/loss": losses[index]}, best=model)
            with torch.no_grad():
                model.weight.fill_(99)
            run.log({"other": index})

    given = order()
    attempt(given, program)
    best = from_bytes(Path(given.best).read_bytes())
    assert best["step"] == 3
    assert best["metrics"] == {"val/loss": 1.0}
    assert best["model_state_dict"]["weight"].item() == 2
    assert [sorted(row) for row in rows_of(given)] == [["other", "step", "time", "val/loss"]] * 5


def test_a_metric_is_a_number(order: Callable[..., Order]) -> None:
    given = order()

    def program(run: Run) -> None:
        run.keep()
        for _ in run.steps(1):
            run.log({"a": 1, "b": True, "c": torch.tensor(0.5), "d": np.float32(2), "e": 1e300, "f": math.inf})
            for value in ("1", None, [1], torch.zeros(2), {}):
                with pytest.raises(RelayError, match="is no number"):
                    run.log({"loss": value})
            for name in ("step", "epoch", "time", "run", "state", "seed"):
                with pytest.raises(RelayError, match="name of Relay's own columns"):
                    run.log({name: 1})

    attempt(given, program)
    (row,) = values_of(given)
    assert row == {"step": 1, "a": 1, "b": 1, "c": 0.5, "d": 2.0, "e": math.inf, "f": math.inf}


def test_what_keep_refuses(order: Callable[..., Order]) -> None:
    run = Run(order())
    with pytest.raises(RelayError, match=r"run.keep\(loader=…\): DataLoader has no state_dict"):
        run.keep(loader=torch.utils.data.DataLoader([1, 2]))  # type: ignore[arg-type]
    with pytest.raises(RelayError, match="list has no state_dict and load_state_dict"):
        run.keep(values=[1])
    run.keep(values={})
    with pytest.raises(RelayError, match="was called before"):
        run.keep(more={})


@pytest.mark.parametrize("total", [-1, 1.5, True, "3"])
def test_a_number_of_steps_is_whole(order: Callable[..., Order], total: Any) -> None:
    with pytest.raises(RelayError, match="give a whole number of steps"):
        Run(order()).steps(total)


def test_a_state_that_could_not_be_read_back_is_found_at_the_first_save(order: Callable[..., Order]) -> None:
    run = Run(order(every_steps=2))
    stats = {"best": np.float64(1.0)}
    run.keep(stats=stats)
    with pytest.raises(CheckpointError, match=r"run.keep\(stats=…\): holds numpy.float64, which cannot be read back"):
        list(run.steps(5))
    assert run.step == 2


def test_other_objects_than_those_of_the_checkpoint_are_refused(order: Callable[..., Order]) -> None:
    attempt(order(), until(3, random.random))
    with pytest.raises(CheckpointError, match="the checkpoint holds sums, and the program now keeps other"):
        Run(order(2)).keep(other={})
    with pytest.raises(CheckpointError, match="does not fit the program"):
        Run(order(2)).keep(sums=nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="states are of a run with other parameters"):
        Run(order(2, key="another"))
    assert newest_step(Path(order().checkpoints)) == 4


def test_objects_that_are_not_kept_are_named(order: Callable[..., Order], capsys: pytest.CaptureFixture[str]) -> None:
    def program(run: Run) -> None:
        model, other, frozen = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False)
        teacher = nn.Linear(1, 1).eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        head, wrapped = model, nn.Sequential(model)
        run.keep(model=model)
        del head
        for _ in run.steps(1):
            assert all((other, frozen, teacher, optimizer, wrapped))

    attempt(order(), program)
    warned = capsys.readouterr().err
    assert warned.startswith("relay: other, optimizer: has a state that is not kept")


def test_what_an_optimizer_refers_to_is_not_kept_with_it(
    order: Callable[..., Order], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(order())
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    run.keep(schedule=schedule)
    next(run.steps(1))
    assert "relay: network, optimizer: has a state that is not kept" in capsys.readouterr().err
    run = Run(order())
    run.keep(optimizer=optimizer, schedule=schedule)
    next(run.steps(1))
    assert "relay: network: has a state that is not kept" in capsys.readouterr().err


def test_what_a_kept_object_reaches_is_kept(order: Callable[..., Order], capsys: pytest.CaptureFixture[str]) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = nn.Linear(1, 1)
            self.optimizers = [torch.optim.SGD(self.model.parameters(), lr=0.1)]

        def state_dict(self) -> dict[str, Any]:
            return {"model": self.model.state_dict()}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.model.load_state_dict(state["model"])

    def program(run: Run) -> None:
        trainer = Trainer()
        model, (optimizer,) = trainer.model, trainer.optimizers
        run.keep(trainer=trainer)
        for _ in run.steps(1):
            assert all((model, optimizer))

    attempt(order(), program)
    assert capsys.readouterr().err == ""


def test_a_stop_that_is_caught_ends_the_loop_all_the_same(order: Callable[..., Order]) -> None:
    given, seen = order(), []

    def program(run: Run) -> dict[str, float]:
        run.keep()
        try:
            for index in run.steps(10):
                seen.append(index)
                if index == 3:
                    run.ask_to_stop()
        except BaseException:
            seen.append(-1)
        return {"acc": 1.0}

    assert attempt(given, program)
    assert seen == [0, 1, 2, 3, -1]
    assert reports_of(given)[-1]["event"] == "stopped"


def test_the_explicit_form(order: Callable[..., Order]) -> None:
    drawn: list[float] = []

    def program(run: Run) -> None:
        random.seed(run.attempt)
        state = run.resume() or {"step": 0}
        for step in range(state["step"], 6):
            drawn.append(random.random())
            run.log({"x": drawn[-1]}, step=step + 1)
            if run.attempt == 1 and step == 2:
                run.save({"step": step + 1}, step + 1)
                run.ask_to_stop()
            if run.should_stop():
                return

    assert attempt(order(), program)
    assert attempt(order(2), program) is False
    random.seed(1)
    assert drawn == [random.random() for _ in range(6)]
    assert [row["step"] for row in rows_of(order())] == [1, 2, 3, 4, 5, 6]


def test_rows_that_are_gone_end_the_attempt(order: Callable[..., Order]) -> None:
    attempt(order(), until(5, random.random))
    path = Path(order().metrics)
    path.write_text(path.read_text().replace('"x"', '"y"'))
    with pytest.raises(RunError, match="rows were damaged or changed"):
        Run(order(2))


def test_a_run_that_was_taken_over_writes_nothing_more(order: Callable[..., Order], tmp_path: Path) -> None:
    owner = tmp_path / "owner.json"
    owner.write_text('{"token": "mine"}')
    given = order(owner=str(owner), token="mine", every_steps=1)
    run = Run(given)
    run.keep()
    steps = run.steps(3)
    next(steps)
    owner.write_text('{"token": "another"}')
    with pytest.raises(TakenOverError):
        next(steps)
    assert list_states(Path(given.checkpoints)) == []


@pytest.mark.parametrize("returned", [3, "text", [1]])
def test_a_program_returns_columns_or_nothing(order: Callable[..., Order], returned: object) -> None:
    with pytest.raises(RelayError, match="return None or a dict of numbers and texts"):
        attempt(order(), lambda run: returned)


def test_returned_columns_are_numbers_and_texts(order: Callable[..., Order]) -> None:
    attempt(order(), lambda run: {"test/acc": torch.tensor(0.5), "note": "fine"})
    assert reports_of(order())[-1]["columns"] == {"test/acc": 0.5, "note": "fine"}


def test_what_the_program_holds_by_other_names_is_restored_in_place(order: Callable[..., Order]) -> None:
    def program(run: Run) -> None:
        weights, history, inner = torch.zeros(2), [], {"n": [0]}
        run.keep(state={"weights": weights, "history": history, "inner": inner})
        for index in run.steps(8):
            weights += 1
            history.append(index)
            inner["n"][0] += 1
            run.log({"weights": weights.sum(), "entries": len(history), "count": inner["n"][0]})
            if run.attempt == 1 and index == 4:
                run.ask_to_stop()

    attempt(order(), program)
    attempt(order(2), program)
    assert [(row["weights"], row["entries"], row["count"]) for row in values_of(order())] == [
        (2.0 * step, step, step) for step in range(1, 9)
    ]


def test_a_baseline_that_is_logged_before_the_loop_is_logged_once(order: Callable[..., Order]) -> None:
    def program(run: Run) -> None:
        run.keep()
        run.log({"val/loss": 9.0})
        for index in run.steps(5):
            run.log({"x": index})
            if run.attempt == 1 and index == 2:
                run.ask_to_stop()

    attempt(order(), program)
    attempt(order(2), program)
    assert [row["step"] for row in rows_of(order())] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("step", [-1, 2.5, "x", 10**16, True, 3])
def test_a_step_is_a_whole_number_that_does_not_go_back(order: Callable[..., Order], step: Any) -> None:
    run = Run(order())
    run.log({"x": 1}, step=4)
    with pytest.raises(RelayError, match="give the number of completed steps, a whole number, and none below"):
        run.log({"x": 1}, step=step)


def test_a_state_that_becomes_unreadable_is_found_when_it_is_saved(order: Callable[..., Order]) -> None:
    given = order(every_steps=1)
    state: dict[str, Any] = {"best": None}

    def program(run: Run) -> None:
        run.keep(state=state)
        for index in run.steps(5):
            if index == 3:
                state["best"] = np.float64(1)

    with pytest.raises(CheckpointError, match=r"run.keep\(state=…\): holds numpy.float64"):
        attempt(given, program)
    assert newest_step(Path(given.checkpoints)) == 3


def test_loops_by_hand_and_by_steps_do_not_mix(order: Callable[..., Order]) -> None:
    run = Run(order())
    run.keep(state={})
    with pytest.raises(RelayError, match="is for loops without"):
        run.save({"n": 1}, 1)
    other = Run(order())
    steps = other.steps(3)
    next(steps)
    with pytest.raises(RelayError, match="is for loops without"):
        other.save({"n": 1}, 1)


def test_steps_may_be_counted_in_billions(order: Callable[..., Order]) -> None:
    given = order()
    run = Run(given)
    for step in (10**9 - 1, 10**9, 10**10):
        run.save({"n": step}, step)
    assert [path.name.partition("-")[0] for path in list_states(Path(given.checkpoints))] == [
        "step_10000000000",
        "step_1000000000",
    ]
    assert Run(order(2)).resume() == {"n": 10**10}


def test_a_second_loop_draws_as_it_did(order: Callable[..., Order]) -> None:
    def program(run: Run) -> None:
        random.seed(1)
        run.keep()
        for _ in run.steps(5):
            run.log({"x": random.random()})
        random.random()
        for index in run.steps(12):
            run.log({"x": random.random()})
            if run.attempt == 1 and index == 8:
                run.ask_to_stop()

    attempt(order(), program)
    attempt(order(2), program)
    stopped = values_of(order())
    straight = order(3, checkpoints=order().checkpoints + "3", metrics=order().metrics + "3")
    attempt(straight, program)
    assert stopped == values_of(straight)


def test_a_stop_before_the_first_step_of_an_attempt_changes_nothing(order: Callable[..., Order]) -> None:
    def program(run: Run) -> None:
        random.seed(run.attempt)
        run.keep()
        if run.attempt == 2:
            run.ask_to_stop()
        for index in run.steps(8):
            run.log({"x": random.random()})
            if run.attempt == 1 and index == 3:
                run.ask_to_stop()

    for number in (1, 2, 3):
        attempt(order(number), program)
    random.seed(1)
    assert [row["x"] for row in values_of(order())] == [random.random() for _ in range(8)]


def test_what_follows_a_loop_draws_as_it_did(order: Callable[..., Order]) -> None:
    seen = []

    def program(run: Run) -> None:
        random.seed(1)
        run.keep()
        for _ in run.steps(5):
            random.random()
        seen.append(random.random())
        if run.attempt == 1:
            run.ask_to_stop()

    assert attempt(order(), program)
    attempt(order(2), program)
    assert seen[0] == seen[1]


def test_a_program_that_keeps_nothing_is_told(order: Callable[..., Order], capsys: pytest.CaptureFixture[str]) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = nn.Linear(1, 1)

        def fit(self, run: Run) -> None:
            for _ in run.steps(1):
                pass

    attempt(order(), lambda run: Trainer().fit(run))
    warned = capsys.readouterr().err
    assert "relay: self.model: has a state that is not kept" in warned
    assert "run.keep(model=self.model, …)" in warned
    assert "run.keep was not called" in warned
