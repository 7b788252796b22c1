from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler

from src.optim import make_optimizer, scheduled_lr
from src.schema import Optimizer as OptimizerConfig
from src.schema import Scheduler

TOTAL, PER_EPOCH, LR = 40, 4, 0.1


def torchs_rates(make: Callable[[Optimizer], lr_scheduler.LRScheduler]) -> list[float]:
    """The rates that torch's own scheduler gives, step by step."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(TOTAL):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("scheduler", "theirs"),
    [
        (Scheduler(name="none"), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (Scheduler(name="step", step_size=3, gamma=0.5), lambda o: lr_scheduler.StepLR(o, 3 * PER_EPOCH, 0.5)),
        (Scheduler(name="cosine"), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL)),
        (Scheduler(name="onecycle"), lambda o: lr_scheduler.OneCycleLR(o, LR, TOTAL, cycle_momentum=False)),
    ],
)
def test_schedules_are_torchs(scheduler: Scheduler, theirs: Callable[[Optimizer], lr_scheduler.LRScheduler]) -> None:
    ours = [scheduled_lr(scheduler, LR, step, TOTAL, PER_EPOCH) for step in range(TOTAL)]
    assert ours == pytest.approx(torchs_rates(theirs), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["none", "step", "cosine", "onecycle"])
def test_warm_up_rises_to_the_schedule(name: str) -> None:
    scheduler = Scheduler(name=name, warmup_steps=5)  # type: ignore[arg-type]
    rates = [scheduled_lr(scheduler, LR, step, TOTAL, PER_EPOCH) for step in range(TOTAL)]
    start = rates[5]
    assert rates[:5] == pytest.approx([start * (i + 1) / 6 for i in range(5)])
    assert start == pytest.approx(scheduled_lr(Scheduler(name=name), LR, 0, TOTAL - 5, PER_EPOCH))  # type: ignore[arg-type]


def test_a_warm_up_longer_than_the_run() -> None:
    rates = [scheduled_lr(Scheduler(warmup_steps=100), LR, step, 10, 5) for step in range(10)]
    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1] < LR


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_optimizers_by_name(name: str, kind: type[Optimizer]) -> None:
    config = OptimizerConfig(name=name, lr=0.5, weight_decay=0.25, momentum=0.75)  # type: ignore[arg-type]
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(2))], config)
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    if name in ("sgd", "rmsprop"):
        assert group["momentum"] == 0.75
