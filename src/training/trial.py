"""`python -m src.training.trial ANSWER`: builds and tries networks and optimizers, before runs with them are planned.

In a process of its own, because planning imports no torch and none of the user's code. Stdin holds, as JSON,
`project`, the folder of the user's code, and `trials`, a list of {`model`, `optimizer`, `input`}: two sections of the
configuration, and the fields of `Input`. The answer, a JSON file, has for each what `try_out` returns.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relay.config.sections import as_tuples
from relay.errors import ConfigError
from relay.program.own_code import where_raised
from relay.program.serialization import from_bytes, to_bytes
from src.config.train_section import OPTIMIZERS, Optimizer
from src.models.options import Model
from src.models.registry import build_model
from src.training.optim import make_optimizer

# Tensors of at most this size in each direction are enough to see what an optimizer accepts and keeps.
_EDGE = 3


@dataclass(frozen=True)
class Input:
    """What a network is tried with: inputs of a `type`, float32 or int64, and the `largest` whole number among them."""

    type: str = "float32"
    largest: int = 0

    def batch(self, count: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """So many inputs: zeros, or the largest whole number, which an embedding must have."""
        return torch.full((count, *shape), self.largest, device=device, dtype=getattr(torch, self.type))


def try_out(model: Model, optimizer: Optimizer, project: str, given: Input | None = None) -> dict[str, str]:
    """`problem`: why the network or the optimizer cannot be trained, one line; `single`: why the network cannot be
    trained on a batch of one. Each is "" if there is nothing.
    """
    given = given or Input()
    try:
        network = _tried(model, project, given)
        if optimizer.name not in OPTIMIZERS or optimizer.options:
            _try_optimizer(network, optimizer, project)
    except ConfigError as error:
        return {"problem": str(error), "single": ""}
    return {"problem": "", "single": _problem_of_one(model, network, given)}


def _tried(model: Model, project: str, given: Input) -> nn.Module:
    """The network, which maps a batch of two to logits in training and in evaluation.

    On the meta device, where a network has shapes and no memory; if it cannot be executed there, on the CPU.
    """
    try:
        # The meta device has no values, and an embedding does not see numbers beyond its size there.
        return _tried_on(torch.device("cpu" if given.largest else "meta"), model, project, given)
    except ConfigError:
        # What a network reads of its tensors is not there on the meta device. The CPU has the last word.
        return _tried_on(torch.device("cpu"), model, project, given)


def _tried_on(device: torch.device, model: Model, project: str, given: Input) -> nn.Module:
    with device:
        network = build_model(model, project)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model.type: {model.type} gives {type(network).__name__}; it must return a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(f"model.type: {model.type} has no weights that can be trained")
    strange = [name for name, value in network.state_dict().items() if not isinstance(value, Tensor)]
    if strange:
        raise ConfigError(
            f"model.type: {model.type}: {strange[0]} of its state_dict is no tensor; keep such a state in a buffer, so "
            "that checkpoints have it"
        )
    for training in (False, True):
        logits = _forward(network.train(training), model, project, 2, device, given)
        _check_output(logits, model, training=training)
    return network


def _forward(network: nn.Module, model: Model, project: str, count: int, device: torch.device, given: Input) -> Any:
    inputs = given.batch(count, model.shape, device)
    try:
        return network(inputs)
    except Exception as error:
        shape = list(model.shape)
        raise ConfigError(
            f"model.type: {model.type} cannot take inputs of shape {shape}: {where_raised(error, project)}"
            f"{_advice(model, str(error))}"
        ) from None


def _advice(model: Model, text: str) -> str:
    if "channels" in text and len(model.shape) == 3 and model.shape[0] != 3:
        return "; many networks need three channels: preprocess.mode=RGB repeats grey on all of them"
    return "; larger images: preprocess.resize" if "too small" in text or "can't be greater" in text else ""


def _check_output(logits: Any, model: Model, *, training: bool) -> None:
    when = "in training" if training else "in evaluation"
    if not isinstance(logits, Tensor):
        several = f" of {len(logits)}" if isinstance(logits, tuple | list | dict) else ""
        raise ConfigError(
            f"model.type: {model.type} gives a {type(logits).__name__}{several} {when}; a network must give one tensor "
            "of logits: return the head that predicts the class, or train with a function of your own"
        )
    wanted = (2, model.classes)
    if tuple(logits.shape) != wanted:
        raise ConfigError(
            f"model.type: {model.type} gives {tuple(logits.shape)} for a batch of two {when}, must be {wanted}: one "
            "logit per class"
        )
    if not logits.is_floating_point():
        raise ConfigError(f"model.type: {model.type} gives {logits.dtype} {when}; logits must be floating-point")
    if training and not logits.requires_grad:
        raise ConfigError(
            f"model.type: {model.type} gives logits without a gradient in training; remove no_grad, detach"
        )


def _problem_of_one(model: Model, network: nn.Module, given: Input) -> str:
    device = next(network.parameters()).device
    try:
        network.train()(given.batch(1, model.shape, device))
    except Exception as error:
        return " ".join(str(error).split())[:200]
    return ""


def _try_optimizer(network: nn.Module, optimizer: Optimizer, project: str) -> None:
    """Step an optimizer on small weights of the network's kinds, and check that it resumes exactly."""
    shapes = [tuple(min(edge, _EDGE) for edge in each.shape) for each in network.parameters() if each.requires_grad]

    def made() -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
        weights = [nn.Parameter(torch.ones(shape)) for shape in dict.fromkeys(shapes)]
        return weights, make_optimizer(weights, optimizer, project=project)

    try:
        weights, first = made()
        _step(weights, first, 2)
        saved = to_bytes({"optimizer": first.state_dict(), "weights": [each.detach().clone() for each in weights]})
        _step(weights, first, 2)
        others, second = made()
        state: Any = from_bytes(saved)
        second.load_state_dict(state["optimizer"])
        for other, value in zip(others, state["weights"], strict=True):
            other.data.copy_(value)
        _step(others, second, 2)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"train.optimizer: {optimizer.name} cannot train this network: {where_raised(error, project)}"
        ) from None
    if not all(torch.equal(one, other) for one, other in zip(weights, others, strict=True)):
        raise ConfigError(
            f"train.optimizer.name: {optimizer.name} does not resume exactly: its state_dict is not all that it keeps; "
            "keep it in self.state, as the optimizers of torch do"
        )


def _step(weights: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int) -> None:
    for number in range(steps):
        for weight in weights:
            weight.grad = torch.linspace(-1, 1, weight.numel()).reshape(weight.shape) + number
        optimizer.step()


def answer_of(asked: Mapping[str, Any]) -> list[dict[str, str]]:
    """What `try_out` says of each trial."""
    return [
        try_out(
            Model.model_validate(as_tuples(each["model"])),
            Optimizer.model_validate(as_tuples(each["optimizer"])),
            asked["project"],
            Input(**each["input"]),
        )
        for each in asked["trials"]
    ]


def main() -> None:
    """Read the trials, write the answer. What the user's code prints does not disturb it."""
    # Of deprecated arguments and the like: the run itself shows them.
    warnings.simplefilter("ignore")
    answer = answer_of(json.load(sys.stdin))
    Path(sys.argv[1]).write_text(json.dumps(answer))
    # A thread of the user's code must not keep this process.
    os._exit(0)


if __name__ == "__main__":
    main()
