"""What a step costs with a user's network and data, against the same network and images as Relay's own."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from src.config.loading import make_config
from src.config.schema import Config
from src.data.dataset import load
from src.data.found import with_found
from src.training.learner import Learner
from tests.benchmarks.table import Row
from tests.benchmarks.training_speed import measure

# The network of Relay that is also built as one of the user's: on a CPU, both compute in one memory format.
_SAME = {"model.type": "residual_cnn", "model.num_modules": 2, "model.stem_channels": 16}
_NETWORK = """
def net(classes, shape):
    from src.models.options import Model
    from src.models.residual import ResidualCNN

    return ResidualCNN(Model(num_classes=classes, input_shape=shape, num_modules=2, stem_channels=16))
"""
_DATA = """
import numpy as np


def load(split):
    return np.load(f"{split}_x.npy"), np.load(f"{split}_y.npy")
"""


def own_rows(config: Config, device: torch.device, pairs: int) -> Iterator[Row]:
    """images/s of training steps, batches included: ours against the user's."""
    with tempfile.TemporaryDirectory() as folder:
        ours = with_found(make_config(config.to_dict(), "the benchmark", {**_SAME, "train.batch_size": 32}))
        theirs = _as_the_users(ours, Path(folder))
        sides = {name: _steps(each) for name, each in {"own": theirs, "ours": ours}.items()}
        found = measure(sides, device, pairs, 1.0)
        what = "steps of an own network on own images"
        yield Row(what, "the same as Relay's", "images/s", found["own"], found["ours"], "0.97")


def _as_the_users(config: Config, folder: Path) -> Config:
    """The same network and images, from a project in `folder`."""
    (folder / "nets.py").write_text(_NETWORK)
    (folder / "images.py").write_text(_DATA)
    data = load(config)
    for name, part in (("train", data.train), ("val", data.val)):
        np.save(folder / f"{name}_x.npy", np.asarray(part.images)[part.indices])
        np.save(folder / f"{name}_y.npy", part.labels[part.indices])
    changes = {
        "model.type": "nets:net",
        "project.path": str(folder),
        "dataset.name": "images:load",
        "dataset.root": str(folder / "data"),
        "dataset.split": {"val": "val", "test": 0},
        "dataset.classes": None,
        "dataset.train_per_class": None,
    }
    return with_found(make_config(config.to_dict(), "the benchmark", changes))


def _steps(config: Config) -> Callable[[], int]:
    learner = Learner(config, load(config).train)
    numbers = itertools.count()
    return lambda: len(learner.step(next(numbers), 0.001)[2])
