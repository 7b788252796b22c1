"""Measures what checkpoints cost a training: `python -m tests.benchmarks.checkpoint_cost [--config FILE] [--set
KEY=VALUE]`.

Saves the exact state of the configured network several times, compares this with plain writes of the same bytes, and
prints the share of a training that it takes at `checkpoint.every_minutes`. Asynchronous saving could win back at most
that share, less the time to copy the state.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from relay.cli import ConfigOption, SetOption, overrides_of, run_command
from relay.program.generators import random_state
from relay.program.serialization import to_bytes
from relay.program.states import save_state
from src.config.loading import load_config
from src.models.registry import build_model
from src.training.device import choose_device
from src.training.optim import make_optimizer

_TIMES = 7


def main(config: ConfigOption = "configs/config.yaml", set_: SetOption = None) -> None:
    """Print what a checkpoint of the configured network costs."""
    loaded = load_config(config, overrides_of(set_))
    device = choose_device(loaded.train.device)
    network = build_model(loaded.model).to(device)
    optimizer = make_optimizer(network.parameters(), loaded.train.optimizer)
    images = torch.rand(2, *loaded.model.input_shape, device=device)
    # One step, because Adam creates its moments in the first one.
    torch.autograd.backward(functional.cross_entropy(network(images), torch.zeros(2, dtype=torch.int64, device=device)))
    optimizer.step()
    weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    state = {
        "model_state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random_state(device),
        "best_weights": weights,
    }
    data = to_bytes(state)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        steps = iter(range(1000))
        saving_s = _median_s(lambda: save_state(Path(folder), next(steps), state, keep=2))
        plain_s = _median_s(lambda: _write(Path(folder) / "plain", data))
    share = saving_s / (60 * (loaded.checkpoint.every_minutes or 5))
    every = loaded.checkpoint.every_minutes
    print(f"{len(data) / 2**20:.1f} MiB; saving {saving_s:.3f} s; a plain durable write of these bytes {plain_s:.3f} s")
    print(f"ratio {saving_s / plain_s:.1f}; {share:.3%} of a training that saves every {every} min")


def _median_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_TIMES):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    run_command(main)
