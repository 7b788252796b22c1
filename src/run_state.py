"""The exact state of a training run: what a checkpoint holds beside the network and the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from torch import Tensor
from typing_extensions import TypedDict

FORMAT = 1
_record = with_config(ConfigDict(extra="allow", arbitrary_types_allowed=True, defer_build=True))
Count = Annotated[int, Field(ge=0, le=10**15)]


@_record
class SavedState(TypedDict):
    """What the state of any run holds."""

    key: str
    model_state_dict: dict[str, Tensor]
    optimizer: dict[str, Any]
    random: dict[str, Tensor]
    threads: Annotated[int, Field(ge=1, le=10**4)]
    losses: list[float]
    metrics_bytes: Count


@_record
class TrainingState(SavedState):
    """What the state of a training holds."""

    format: int
    step: Count
    evaluated_step: Annotated[int, Field(ge=-1)]
    epoch_sums: Annotated[list[Tensor | Count], Field(min_length=3, max_length=3)] | None
    train: dict[str, float]
    last: dict[str, float]
    best: dict[str, float] | None
    best_weights: dict[str, Tensor] | None
    train_seconds: float
    diverged: bool


_SAVED: TypeAdapter[Any] = TypeAdapter(SavedState)
_TRAINING: TypeAdapter[Any] = TypeAdapter(TrainingState)


def state_problem(state: Mapping[str, Any], *, training: bool) -> str:
    """What keeps a whole file from being the state of a run; "" where nothing does."""
    try:
        (_TRAINING if training else _SAVED).validate_python(state, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        return f"it is not the state of a run ({'.'.join(map(str, found['loc']))}: {found['msg']})"
    return ""


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore the optimizer's state. Raises ValueError where it is that of another one, which torch does not check."""
    own = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(dict(state))
    for group, fresh in zip(optimizer.param_groups, own, strict=True):
        changed = [name for name, value in fresh.items() if name != "params" and type(group[name]) is not type(value)]
        if changed:
            raise ValueError(f"{changed[0]} of the optimizer is {group[changed[0]]!r:.80}")
    for parameter, kept in optimizer.state.items():
        sizes = [value.shape for value in kept.values() if isinstance(value, Tensor) and value.dim()]
        if any(size != parameter.shape for size in sizes):
            raise ValueError(f"the optimizer keeps {list(sizes[0])} for weights of {list(parameter.shape)}")


@dataclass
class Progress:
    """Where a run stands. Tensors stay on the device until they are logged or saved."""

    step: int = 0
    evaluated_step: int = -1
    losses: list[Tensor] = field(default_factory=list)
    epoch_loss: Tensor | None = None
    epoch_correct: Tensor | None = None
    epoch_seen: int = 0
    train: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    best_weights: dict[str, Tensor] | None = None
    train_seconds: float = 0.0
    diverged: bool = False

    def start_epoch(self, device: torch.device) -> None:
        """Set the sums over an epoch back to nothing."""
        self.epoch_loss = torch.zeros((), dtype=torch.float64, device=device)
        self.epoch_correct = torch.zeros((), dtype=torch.int64, device=device)
        self.epoch_seen = 0

    def add_step(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a step that is done: its mean loss, logits (B, classes) and labels (B,), without waiting for them."""
        assert self.epoch_loss is not None
        assert self.epoch_correct is not None
        self.step += 1
        self.losses.append(loss.detach())
        self.epoch_loss += loss.detach().double() * len(labels)
        self.epoch_correct += (logits.detach().argmax(1) == labels).sum()
        self.epoch_seen += len(labels)

    def epoch_means(self) -> dict[str, float]:
        """Mean loss and accuracy over the images of the epoch so far."""
        assert self.epoch_loss is not None
        assert self.epoch_correct is not None
        return {
            "loss_epoch": self.epoch_loss.item() / self.epoch_seen,
            "accuracy": self.epoch_correct.item() / self.epoch_seen,
        }

    def pack(self) -> dict[str, Any]:
        """Tensors and plain values, as a checkpoint holds them."""
        return {
            "step": self.step,
            "evaluated_step": self.evaluated_step,
            "losses": [float(loss) for loss in self.losses],
            "epoch_sums": None if self.epoch_loss is None else [self.epoch_loss, self.epoch_correct, self.epoch_seen],
            "train": self.train,
            "last": self.last,
            "best": self.best,
            "best_weights": self.best_weights,
            "train_seconds": self.train_seconds,
            "diverged": self.diverged,
        }

    @classmethod
    def unpack(cls, state: Mapping[str, Any], device: torch.device) -> Progress:
        """What `pack` packed, with the sums on `device`."""
        now = cls(step=state["step"], evaluated_step=state["evaluated_step"])
        now.losses = [torch.tensor(loss, dtype=torch.float32, device=device) for loss in state["losses"]]
        if state["epoch_sums"] is not None:
            loss, correct, now.epoch_seen = state["epoch_sums"]
            now.epoch_loss, now.epoch_correct = loss.to(device), correct.to(device)
        now.train, now.last = dict(state["train"]), dict(state["last"])
        now.best, now.best_weights = state["best"], state["best_weights"]
        now.train_seconds, now.diverged = state["train_seconds"], state["diverged"]
        return now
