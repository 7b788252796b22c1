"""Optimizers by the path of their class: what they are built with, and that one which cannot resume is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.config.train_section import Optimizer
from src.models.options import Model
from src.training.optim import make_optimizer
from src.training.trial import try_out

MODEL = Model(type="nets:plain", num_classes=3, input_shape=(3, 16, 16))


def problem(project: Path, name: str, **given: Any) -> str:
    return try_out(MODEL, Optimizer(name=name, **given), str(project))["problem"]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("torch.optim.NAdam", {"options": {"betas": (0.8, 0.99), "momentum_decay": 0.01}}),
        ("torch.optim.AdamW", {"options": {"amsgrad": True}}),
        ("torch.optim.Adafactor", {}),
        ("torch.optim.Adagrad", {}),
        ("torch.optim.ASGD", {}),
        ("torch.optim.RAdam", {"decay_norm_bias": False}),
        ("torch.optim.Rprop", {"weight_decay": 0.0}),
        ("torch.optim.SGD", {"options": {"nesterov": True}}),
        ("adam", {"options": {"betas": (0.5, 0.9)}}),
        ("opts:Sign", {"options": {"beta": 0}}),
    ],
)
def test_an_optimizer_is_taken(project: Path, name: str, given: dict[str, Any]) -> None:
    assert problem(project, name, **given) == ""


def test_it_is_given_rate_decay_momentum_and_options(project: Path) -> None:
    weights = [nn.Parameter(torch.ones(2, 2))]
    asked = Optimizer(name="torch.optim.SGD", lr=0.5, weight_decay=0.1, momentum=0.7, options={"nesterov": True})
    (group,) = make_optimizer(weights, asked).param_groups
    assert [group[name] for name in ("lr", "weight_decay", "momentum", "nesterov")] == [0.5, 0.1, 0.7, True]
    own = make_optimizer(weights, Optimizer(name="opts:Sign", options={"beta": 1}), project=str(project))
    # As its signature says, not as YAML has it.
    assert repr(own.param_groups[0]["beta"]) == "1.0"


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("torch.optim.LBFGS", {"weight_decay": 0.0}, "wants a closure"),
        ("opts:Searching", {}, "wants a closure"),
        ("torch.optim.NAdm", {}, "torch.optim has no NAdm; did you mean 'NAdam'"),
        ("torch.optm.Adam", {}, "No module named 'torch.optm'"),
        ("no_such.Adam", {}, "No module named 'no_such'; of your own project, write module:Class"),
        ("torch.nn.Linear", {}, "torch.nn.Linear is no subclass of torch.optim.Optimizer"),
        ("opts:SGD.step", {}, "is no subclass"),
        ("opts:Nothing", {}, "opts has no `Nothing`; it has Sign, Forgetful, Searching"),
        ("opts:Forgetful", {}, "does not resume exactly"),
        ("torch.optim.Rprop", {}, "train.optimizer.weight_decay: 1e-05, but torch.optim.Rprop has none; set it to 0"),
        ("torch.optim.NAdam", {"options": {"beta": 1}}, "has no such option; did you mean 'betas'"),
        ("torch.optim.NAdam", {"options": {"betas": (2.0, 0.9)}}, "Invalid beta parameter at index 0: 2.0"),
        ("torch.optim.NAdam", {"options": {"betas": 3}}, "train.optimizer.options.betas: 3 is no list"),
        ("torch.optim.NAdam", {"options": {"lr": 3}}, "options.lr: is a key of its own: set train.optimizer.lr"),
        ("torch.optim.SparseAdam", {"weight_decay": 0.0}, "SparseAdam does not support dense gradients"),
    ],
)
def test_a_wrong_one_is_refused(project: Path, name: str, given: dict[str, Any], message: str) -> None:
    assert message in problem(project, name, **given)
