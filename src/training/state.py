"""The state of a run, as its checkpoints hold it, and the check of a state that was read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from torch import Tensor

from relay.runs.predictions import Predictions, decode_predictions, encode_predictions
from src.training.measures import cross

FORMAT = 2
Count = Annotated[int, Field(ge=0, le=10**15)]


class SavedState(BaseModel):
    """What every checkpoint holds, of trainings and LR sweeps. Other entries are allowed."""

    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True, protected_namespaces=())

    key: str
    environments: Annotated[list[dict[str, str]], Field(min_length=1)]
    model_state_dict: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor] = {}
    random: dict[str, Tensor]
    threads: Annotated[int, Field(ge=1, le=10**4)]
    numerics: dict[str, Any]
    losses: list[float]
    metrics_bytes: Count
    metrics_digest: str


@dataclass
class TrainingState:
    """The progress of a training. Each field is an entry of its checkpoint, under the same name and type.

    `losses`: of the steps since the last logged row; scalars on the device, floats in a checkpoint.
    `epoch_sums`: loss (float64) and correct predictions (int64), on the device, and images, of the epoch so far.
    `train`, `last`: the latest metrics on train and val. `best`: step, epoch and metrics of the best epoch.
    `best_predictions`: the bytes of the predictions file, uint8 (bytes,), with the crossed ones.
    `half_scores`: of the epochs that are best on the even and on the odd positions of val, see `measures.cross`.
    """

    step: Count = 0
    evaluated_step: Annotated[int, Field(ge=-1)] = -1
    losses: list[Tensor | float] = field(default_factory=list)
    epoch_sums: Annotated[list[Tensor | Count], Field(min_length=3, max_length=3)] | None = None
    train: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] | None = None
    best_weights: dict[str, Tensor] | None = None
    best_predictions: Tensor | None = None
    half_scores: list[float] = field(default_factory=list)
    train_seconds: float = 0.0
    diverged: bool = False

    def start_epoch(self, device: torch.device) -> None:
        """Reset the sums over an epoch."""
        loss = torch.zeros((), dtype=torch.float64, device=device)
        self.epoch_sums = [loss, torch.zeros((), dtype=torch.int64, device=device), 0]

    def add_step(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a completed step: its mean loss (), logits (B, classes) and labels (B,), all on the device."""
        assert self.epoch_sums is not None
        loss_sum, correct, seen = self.epoch_sums
        self.step += 1
        # Tensors, not floats: reading a value would make the host wait for the device at every step.
        self.losses.append(loss.detach())
        self.epoch_sums = [
            loss_sum + loss.detach().double() * len(labels),
            correct + (logits.detach().argmax(1) == labels).sum(),
            seen + len(labels),
        ]

    def take_mean_loss(self) -> float:
        """The mean loss of the steps since the last logged row. Empties `losses`."""
        losses = self._loss_values()
        self.losses.clear()
        return math.fsum(losses) / len(losses)

    def _loss_values(self) -> list[float]:
        # A restored state has floats. The rest is stacked: one copy from the device, not one per step.
        restored = [loss for loss in self.losses if not isinstance(loss, Tensor)]
        since = [loss for loss in self.losses if isinstance(loss, Tensor)]
        return [*restored, *(torch.stack(since).tolist() if since else [])]

    def epoch_means(self) -> dict[str, float]:
        """Mean loss and accuracy over the images of the epoch so far."""
        assert self.epoch_sums is not None
        loss_sum, correct, seen = map(float, self.epoch_sums)
        return {"loss_epoch": loss_sum / seen, "accuracy": correct / seen}

    def keep_predictions(self, predictions: Predictions, scores: list[float], *, is_best: bool) -> bool:
        """Keep what an epoch predicted on val, if it is the best so far on all of val or on one of its halves.

        `scores`: on the halves, see src/training/measures.py. `is_best`: on all of val. Returns whether
        `best_predictions` has changed.
        """
        before = self.half_scores or [-math.inf] * len(scores)
        improved = [math.isfinite(new) and new > old for new, old in zip(scores, before, strict=True)]
        if not is_best and not any(improved):
            return False
        kept = None if self.best_predictions is None else decode_predictions(self.best_predictions.numpy().tobytes())
        self.half_scores = [new if found else old for found, new, old in zip(improved, scores, before, strict=True)]
        best = predictions if is_best or kept is None else kept
        if scores:
            best = replace(best, crossed=cross(kept.crossed if kept else None, predictions, improved))
        # As bytes, because torch.load reads no numpy arrays, and so that the file is the same after a resume.
        self.best_predictions = torch.frombuffer(bytearray(encode_predictions(best)), dtype=torch.uint8)
        return True

    def state_dict(self) -> dict[str, Any]:
        """All fields by name, as a checkpoint holds them."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**content, "losses": self._loss_values()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore all fields from a checkpoint; the sums go to `device`."""
        for each in fields(self):
            setattr(self, each.name, state[each.name])
        if self.epoch_sums is not None:
            self.epoch_sums = [part.to(device) if isinstance(part, Tensor) else part for part in self.epoch_sums]


_TRAINING_FIELDS: dict[str, Any] = {
    name: (hint, ...)
    for name, hint in get_type_hints(TrainingState, include_extras=True).items()
    if name not in SavedState.model_fields
}
_SavedTraining = create_model("_SavedTraining", __base__=SavedState, format=(int, ...), **_TRAINING_FIELDS)


def state_problem(state: Mapping[str, Any], *, training: bool) -> str:
    """Why the content of a checkpoint is not the state of a run; "" if it is one."""
    try:
        (_SavedTraining if training else SavedState).model_validate(state)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        return f"it is not the state of a run ({'.'.join(map(str, found['loc']))}: {found['msg']})"
    return ""
