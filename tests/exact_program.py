"""A program for tests with much that has a state: two networks that play against each other with an optimizer each, a
schedule, scaled gradients that are accumulated in lower precision, averaged weights, a frozen teacher, loader workers.

`forget`: what it does not keep, so that it is not exact; `between_steps`: gradients, too. `own_loader`: batches from
a DataLoader of its own.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

import relay


class Noisy(Dataset):  # type: ignore[type-arg]
    """Points with noise that is drawn when they are read."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((4,), index / 64) + torch.randn(4) / 10


def train(
    run: relay.Run,
    epochs: int = 100,
    workers: int = 2,
    forget: list[str] = [],  # noqa: B006
    between_steps: bool = False,
    own_loader: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Train for so many epochs of 8 steps, or until the loss does not improve."""
    torch.manual_seed(seed)
    generator, critic, teacher = nn.Linear(2, 4), nn.Linear(4, 1), nn.Linear(4, 1).requires_grad_(requires_grad=False)
    averaged = AveragedModel(generator)
    first = torch.optim.Adam(generator.parameters(), lr=0.01)
    second = torch.optim.SGD(critic.parameters(), lr=0.01, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(first, 7)
    scaler = torch.amp.GradScaler("cpu", growth_interval=5)
    noise = torch.Generator().manual_seed(seed)
    patience = {"best": 1e9, "since": 0}
    kept = {
        **{"generator": generator, "critic": critic, "averaged": averaged, "first": first, "second": second},
        **{"schedule": schedule, "scaler": scaler, "noise": noise, "patience": patience},
    }
    run.keep(**{name: each for name, each in kept.items() if name not in forget})
    data = Noisy()
    if own_loader:
        loader = iter(DataLoader(data, 8, shuffle=True, num_workers=workers))
        batches = (next(loader) for step in run.steps(6))
    else:
        batches = run.batches(data, 8, epochs=epochs, seed=seed, workers=workers)
    for batch in batches:
        for part in [batch] if between_steps else batch.chunk(2):
            made = generator(torch.randn(len(part), 2, generator=noise))
            with torch.autocast("cpu", torch.bfloat16):
                loss = critic(made).mean() + teacher(made).square().mean() - critic(part).mean()
            scaler.scale(loss / 2).backward()
        if run.step % 2 or not between_steps:
            for optimizer in (first, second):
                scaler.step(optimizer)
                optimizer.zero_grad()
            scaler.update()
            averaged.update_parameters(generator)
            schedule.step()
        run.log({"val/x2": loss})
        patience["since"] = 0 if loss < patience["best"] else patience["since"] + 1
        patience["best"] = min(patience["best"], float(loss))
        if patience["since"] > 500:
            break
    return {"best": patience["best"]}
