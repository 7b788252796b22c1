"""A user's project: networks and optimizers of every kind that people write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.program import own_code

NETS = '''
import dataclasses
import random

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import nn


def plain(classes: int, shape: tuple[int, int, int], width: int = 6, depth: int = 2) -> nn.Module:
    layers, channels = [], shape[0]
    for _ in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class Mlp(nn.Module):
    """A class, which is called as a function is."""

    def __init__(self, classes: int, shape: tuple[int, ...], hidden: list[int] = [8], drop: float = 0.3):
        super().__init__()
        sizes = [int(np.prod(shape)), *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.norm, self.head, self.drop = nn.BatchNorm1d(sizes[-1]), nn.Linear(sizes[-1], classes), drop

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(nn.functional.dropout(self.norm(x), self.drop, self.training))


class Frozen(nn.Module):
    """A part that is not trained, and one that is dropped at random with Python's and numpy's generators."""

    def __init__(self, classes, shape):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        for weight in self.features[0].parameters():
            weight.requires_grad_(False)
        self.maybe, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, classes)

    def forward(self, x):
        x = self.features(x)
        # In evaluation, too.
        if random.random() < 0.5:
            x = x + self.maybe(x) * float(np.random.rand())
        return self.head(x.mean((2, 3)))


class Words(nn.Module):
    """Whole numbers in, with a recurrent layer, whose output is a tuple."""

    def __init__(self, classes, shape, size: int = 6):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, size), nn.Linear(size, classes)
        self.rnn = nn.GRU(size, size, batch_first=True)

    def forward(self, x):
        return self.head(self.rnn(self.embed(x))[0][:, -1])


class Options(BaseModel):
    width: int = Field(4, ge=2)
    act: str = "relu"


def checked(classes, shape, options: Options):
    act = {"relu": nn.ReLU, "gelu": nn.GELU}[options.act]
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(options.width), act(), nn.Linear(options.width, classes))


@dataclasses.dataclass
class More:
    width: int
    bias: bool = True


def declared(classes, shape, more: More):
    first = nn.Linear(int(np.prod(shape)), more.width, more.bias)
    return nn.Sequential(nn.Flatten(), first, nn.Linear(more.width, classes))


def reads_values(classes, shape):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(int(np.prod(shape)), classes)

        def forward(self, x):
            # Not on the meta device, which has no values.
            return self.layer(x.flatten(1)) * (1 + min(1.0, float(x.abs().max().item())))

    return Net()
'''

TABLES = '''
import numpy as np
import torch


def _rows(split, seed):
    random = np.random.default_rng([seed, len(split)])
    return random, {"train": 90, "val": 20, "test": 15}[split]


def load(split):
    """Five numbers a row."""
    random, n = _rows(split, 1)
    y = random.integers(3, size=n)
    return random.normal(size=(n, 5)) * [1, 10, 100, 1, 1] + y[:, None], y


def tokens(split):
    """Seven words a sentence, and labels that are texts."""
    random, n = _rows(split, 2)
    x = torch.from_numpy(random.integers(11, size=(n, 7)))
    return x, [["left", "right"][int(row[0] > 5)] for row in x]


def grey(split):
    random, n = _rows(split, 3)
    return random.integers(256, size=(n, 9, 12), dtype=np.uint8), random.integers(4, size=n)
'''

OPTIMIZERS = '''
import torch
from torch.optim import Optimizer, SGD


class Sign(Optimizer):
    def __init__(self, params, lr=0.01, weight_decay=0.0, beta: float = 0.9):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                state["mean"] = state.get("mean", torch.zeros_like(weight)).lerp(weight.grad, 1 - group["beta"])
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(state["mean"].sign(), alpha=-group["lr"])


class Forgetful(SGD):
    """Keeps its momentum beside its state."""

    def __init__(self, params, lr=0.01, weight_decay=0.0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data.add_(weight.grad, alpha=-group["lr"] * self.count)


class Searching(Optimizer):
    def __init__(self, params, lr=0.01, weight_decay=0.0):
        super().__init__(params, {"lr": lr})

    def step(self, closure):
        return closure()
'''


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A project with `nets`, `opts` and `tables`; what its modules change in this process is undone."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "nets.py").write_text(NETS)
    (folder / "opts.py").write_text(OPTIMIZERS)
    (folder / "tables.py").write_text(TABLES)
    path = sys.path.copy()
    yield folder
    # Another folder: the modules of this one are forgotten.
    own_code.enter_project(str(tmp_path))
    sys.path[:] = path
