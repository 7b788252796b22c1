"""A small language model of characters. Relay can interrupt its training at any step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import relay


@dataclass
class Params:
    """What relay.yaml may set. A value of another type, or an unknown name, is refused before anything is submitted."""

    text: Path = Path("data/sonnets.txt")
    width: int = 64
    length: int = 32
    batch: int = 16
    steps: int = 300
    lr: float = 1e-2
    seed: int = 0


class CharLM(nn.Module):
    """Predicts each next character from those before it."""

    def __init__(self, characters: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.memory = nn.LSTM(width, width, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(width, characters)

    def forward(self, text: Tensor) -> Tensor:
        """(batch, length) of character numbers -> (batch, length, characters)."""
        hidden, _ = self.memory(self.embedding(text))
        return self.output(self.dropout(hidden))


def loss_of(model: nn.Module, text: Tensor, params: Params) -> Tensor:
    """The loss on a random batch of lines of the text."""
    starts = torch.randint(len(text) - params.length, (params.batch,))
    lines = torch.stack([text[start : start + params.length + 1] for start in starts.tolist()])
    return nn.functional.cross_entropy(model(lines[:, :-1]).flatten(0, 1), lines[:, 1:].flatten())


def train(run: relay.Run, params: Params) -> None:
    """Train, and log the loss on the last tenth of the text, which is not trained on."""
    torch.manual_seed(params.seed)
    raw = params.text.read_text()
    numbers = {character: number for number, character in enumerate(sorted(set(raw)))}
    text = torch.tensor([numbers[character] for character in raw], device=run.device)
    known, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    model = CharLM(len(numbers), params.width).to(run.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr)

    run.keep(model=model, optimizer=optimizer)  # A checkpoint holds these. A later attempt restores them here.
    for step in run.steps(params.steps):  # Begins where the last attempt stopped.
        loss = loss_of(model.train(), known, params)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log({"train/loss": loss})
        if (step + 1) % 50 == 0:
            with torch.no_grad():
                losses = [loss_of(model.eval(), held_out, params) for _ in range(10)]
            run.log({"val/loss": torch.stack(losses).mean()}, best=model)
