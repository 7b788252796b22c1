"""Measures the memory of an evaluation on a CPU: `python -m tests.benchmarks.evaluation_memory [--config FILE] [--set
KEY=VALUE] [--images 8000]`.

In a process of its own, prints the peak memory of training steps and that of the evaluation after them, in MB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn import functional

from relay.cli import ConfigOption, SetOption, overrides_of, run_command
from src.config.loading import load_config
from src.data.dataset import ImageSubset
from src.models.registry import build_model
from src.training.device import compute_reproducibly, reuse_freed_memory
from src.training.metrics import evaluate_split
from src.training.optim import make_optimizer

_STEPS = 5


def main(
    config: ConfigOption = "configs/config.yaml",
    images: Annotated[int, typer.Option("--images", help="How many images are evaluated.")] = 8000,
    set_: SetOption = None,
) -> None:
    """Print the peak memory of training steps and of an evaluation."""
    loaded = load_config(config, overrides_of(set_))
    compute_reproducibly(loaded.train.seed)
    reuse_freed_memory()
    classes, shape = loaded.model.num_classes, loaded.model.input_shape
    network = build_model(loaded.model)
    optimizer = make_optimizer(network.parameters(), loaded.train.optimizer)
    for _ in range(_STEPS):
        batch, labels = torch.rand(loaded.train.batch_size, *shape), torch.arange(loaded.train.batch_size) % classes
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(network(batch), labels))
        optimizer.step()
    training = _peak_mb()
    # The peak of this process starts anew (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    # One image many times: no memory for the images themselves, which a run maps from a file.
    pixels = np.broadcast_to(np.arange(shape[2], dtype=np.uint8), (1, *shape))
    part = ImageSubset(pixels, np.zeros(1, np.int64), np.zeros(1, np.uint64), np.zeros(images, np.int64))  # type: ignore[arg-type]
    evaluate_split(network, part, loaded, torch.device("cpu"), lambda: False)
    print(f"training steps {training:.0f} MB, evaluation of {images} images {_peak_mb():.0f} MB")


def _peak_mb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    run_command(main)
