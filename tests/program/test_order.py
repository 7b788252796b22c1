"""Batches of a data set: any step is reached without those before it, and workers change nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from relay.errors import RelayError
from relay.program.contract import Order
from relay.program.run import Run
from tests.program.test_run import attempt, order, values_of

__all__ = ["order"]


class Noisy:
    """Samples with noise of all three generators."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, random.random() + float(np.random.rand()) + float(torch.rand(()))


def seen_in(
    given: Order, stop: int | None = None, *, draws: bool = True, workers: int = 0, **options: Any
) -> list[tuple[list[int], list[float], float]]:
    """The indices, values, and a number of the program's own generator, at each step of an attempt."""
    seen = []

    def program(run: Run) -> None:
        torch.manual_seed(1)
        run.keep()
        for index, value in run.batches(Noisy(), 4, **{"epochs": 3, "seed": 5, "workers": workers, **options}):
            own = float(torch.rand(())) if draws else 0.0
            seen.append((index.tolist(), value.tolist(), own))
            run.log({"own": own})
            if len(seen) == stop:
                run.ask_to_stop()

    attempt(given, program)
    return seen


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_the_batches_of_one_that_never_stopped(
    order: Callable[..., Order], stop: int, workers: int
) -> None:
    first = order()
    seen = seen_in(first, stop, workers=workers)
    seen += seen_in(order(2))
    straight = order(checkpoints=first.checkpoints + "2", metrics=first.metrics + "2")
    assert seen == seen_in(straight)
    assert len(seen) == 6
    rows = values_of(first)
    assert rows == values_of(straight)
    assert [row["epoch"] for row in rows] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_each_epoch_has_an_order_and_noise_of_its_own(order: Callable[..., Order]) -> None:
    seen = seen_in(order(), drop_last=False)
    assert len(seen) == 9
    epochs = [[index for indices, _, _ in seen[at : at + 3] for index in indices] for at in (0, 3, 6)]
    assert [sorted(each) for each in epochs] == [list(range(10))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    values = {value for _, each, _ in seen for value in each}
    assert len(values) == 30


def test_without_shuffling_the_order_is_that_of_the_data_set(order: Callable[..., Order]) -> None:
    assert [indices for indices, _, _ in seen_in(order(), shuffle=False, epochs=1)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_seeds_differ(order: Callable[..., Order]) -> None:
    first = order()
    second = order(checkpoints=first.checkpoints + "2", metrics=first.metrics + "2")
    assert seen_in(first)[0] != seen_in(second, seed=6)[0]


def test_a_data_set_without_a_batch_is_refused(order: Callable[..., Order]) -> None:
    with pytest.raises(RelayError, match="10 samples make no batch of 11; give a smaller size"):
        Run(order()).batches(Noisy(), 11, epochs=1)


def test_what_is_not_kept_is_named_here_too(order: Callable[..., Order], capsys: pytest.CaptureFixture[str]) -> None:
    def program(run: Run) -> None:
        model = torch.nn.Linear(1, 1)
        run.keep()
        for _ in run.batches(Noisy(), 4, epochs=1):
            assert model

    attempt(order(), program)
    assert "relay: model: has a state that is not kept" in capsys.readouterr().err
