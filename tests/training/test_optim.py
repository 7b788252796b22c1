from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler

from src.config.train_section import Optimizer as OptimizerConfig
from src.config.train_section import Scheduler
from src.training.optim import make_optimizer, scheduled_lr
from tests.conftest import ROOT

TOTAL, PER_EPOCH, LR = 40, 4, 0.1


def torchs_rates(make: Callable[[Optimizer], lr_scheduler.LRScheduler]) -> list[float]:
    """The rate of each step with torch's own scheduler."""
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
    assert isinstance(optimizer, kind)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    if name in ("sgd", "rmsprop"):
        assert group["momentum"] == 0.75


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_steps_are_those_of_torchs_own_optimizer_bit_for_bit(name: str) -> None:
    config = OptimizerConfig(name=name, lr=0.05, weight_decay=0.01)  # type: ignore[arg-type]
    kinds = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
    }
    options = {"momentum": config.momentum} if name in ("sgd", "rmsprop") else {}
    ends = []
    for own in (True, False):
        torch.manual_seed(0)
        parameter = torch.nn.Parameter(torch.randn(4, 3))
        theirs = kinds[name]([parameter], lr=0.05, weight_decay=0.01, **options)
        optimizer = make_optimizer([parameter], config) if own else theirs
        for _ in range(5):
            optimizer.zero_grad()
            (parameter**3).sum().backward()
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        ends.append(parameter.detach().clone())
    assert torch.equal(*ends)


def test_a_run_does_not_import_the_compiler() -> None:
    """`import torch._dynamo` takes as long as torch itself."""
    code = (
        "import sys, torch; from src.training.optim import make_optimizer\n"
        "from src.config.train_section import Optimizer\n"
        "p = torch.nn.Parameter(torch.zeros(2)); o = make_optimizer([p], Optimizer())\n"
        "p.sum().backward(); o.step(); o.zero_grad(); o.load_state_dict(o.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
