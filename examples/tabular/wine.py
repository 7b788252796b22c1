"""A small network that tells three sorts of wine apart by 13 measurements. The data come with scikit-learn."""

from __future__ import annotations

import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import TensorDataset

import relay


def splits() -> tuple[TensorDataset, TensorDataset]:
    """The wines to train on and those held out; each measurement with mean 0 and deviation 1 over the former."""
    x, y = load_wine(return_X_y=True)
    known_x, held_x, known_y, held_y = train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)
    mean, deviation = known_x.mean(0), known_x.std(0)
    parts = [((known_x - mean) / deviation, known_y), ((held_x - mean) / deviation, held_y)]
    known, held_out = (TensorDataset(torch.tensor(x).float(), torch.tensor(y).long()) for x, y in parts)
    return known, held_out


def train(
    run: relay.Run, lr: float = 1e-2, width: int = 32, dropout: float = 0.2, epochs: int = 30, seed: int = 0
) -> dict[str, float]:
    """Train, and measure on the held-out wines after each epoch. Returns the accuracy of the last one."""
    torch.manual_seed(seed)
    known, held_out = splits()
    layers = [nn.Linear(13, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 3)]
    model = nn.Sequential(*layers).to(run.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    loss_of = nn.CrossEntropyLoss()
    accuracy = 0.0

    run.keep(model=model, optimizer=optimizer)
    # The batches of each epoch are drawn from its number: a resumed run goes on with the next one.
    for x, y in run.batches(known, 16, epochs=epochs, seed=seed):
        loss = loss_of(model.train()(x.to(run.device)), y.to(run.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log({"train/loss": loss})
        if (run.step + 1) % (len(known) // 16) == 0:
            x, y = (part.to(run.device) for part in held_out.tensors)
            with torch.no_grad():
                scores = model.eval()(x)
            accuracy = (scores.argmax(1) == y).float().mean().item()
            run.log({"val/accuracy": accuracy, "val/loss": loss_of(scores, y)}, best=model)
    return {"last/accuracy": accuracy}
