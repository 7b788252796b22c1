"""Optimizers and learning-rate schedules by name.

A schedule is a pure function of the step, so a resumed run has no schedule state to restore.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Parameter

from relay.config.messages import nearest
from relay.config.sections import as_lists
from relay.errors import ConfigError
from relay.program.own_code import is_own, load_own
from relay.program.parameters import convert
from src.config.train_section import Optimizer, Scheduler

# The shape of onecycle (Smith & Topin, Super-Convergence, 2018), with the defaults of torch's OneCycleLR: pct_start,
# div_factor and final_div_factor.
_ONECYCLE_RISE = 0.3
_ONECYCLE_START = 1 / 25
_ONECYCLE_END = _ONECYCLE_START / 1e4


class _Eager(torch.optim.Optimizer):
    """An optimizer's methods without torch's wrappers for torch.compile, which runs do not use.

    The wrappers import torch._dynamo at the first call: 1.6 to 2.6 s of CPU time in every task (torch 2.15).
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


def _without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (_Eager, kind), {"step": step})


def make_optimizer(
    parameters: Iterable[Parameter],
    optimizer: Optimizer,
    device: torch.device | None = None,
    project: str = "",
) -> torch.optim.Optimizer:
    """The optimizer that `optimizer.name` names; on a GPU, its fused kernels where torch has them.

    `project`: the folder of the user's code. Raises ConfigError if the class or its options are not as they must be.

    Weight decay is decoupled for adamw only (Loshchilov & Hutter 2019); for the others it is an L2 penalty. Without
    `optimizer.decay_norm_bias`, it is for convolutions and matrices only.
    """
    make, options = _chosen(optimizer, project)
    if device is not None and device.type == "cuda" and optimizer.name in ("sgd", "adam", "adamw"):
        options.setdefault("fused", True)
    if optimizer.decay_norm_bias:
        return make(list(parameters), **options)
    # Biases and the parameters of normalisation have one dimension.
    all_parameters = list(parameters)
    groups = [
        {"params": [parameter for parameter in all_parameters if parameter.dim() > 1]},
        {"params": [parameter for parameter in all_parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return make(groups, **options)


_OURS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def _chosen(optimizer: Optimizer, project: str) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    """The class, and the options that it is built with. Raises ConfigError."""
    kind = _OURS.get(optimizer.name) or _class_at(optimizer.name, project)
    takes = _parameters_of(kind, optimizer)
    given = {"lr": optimizer.lr, "weight_decay": optimizer.weight_decay, "momentum": optimizer.momentum}
    for name in given:
        if name in optimizer.options:
            raise ConfigError(f"train.optimizer.options.{name}: is a key of its own: set train.optimizer.{name}")
    if "weight_decay" not in takes and (optimizer.weight_decay or not optimizer.decay_norm_bias):
        raise ConfigError(
            f"train.optimizer.weight_decay: {optimizer.weight_decay}, but {optimizer.name} has none; set it to 0, and "
            "leave decay_norm_bias true"
        )
    options = {name: value for name, value in given.items() if name in takes}
    for name, value in optimizer.options.items():
        if name not in takes:
            more = sorted(set(takes) - set(given) - {"params"})
            raise ConfigError(
                f"train.optimizer.options.{name}: {optimizer.name} has no such option{nearest(name, more)}; it has "
                f"{', '.join(more)}"
            )
        try:
            options[name] = convert(as_lists(value), takes[name])
        except ValueError as error:
            raise ConfigError(f"train.optimizer.options.{name}: {error}") from None
    return (_without_compiler(kind) if optimizer.name in _OURS else kind), options


def _class_at(path: str, project: str) -> type[torch.optim.Optimizer]:
    key = "train.optimizer.name"
    if is_own(path):
        found = load_own(path, project, key)
    else:
        module, _, name = path.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise ConfigError(
                f"{key}: {path}: {error}; of your own project, write module:Class, such as mine:Optimizer"
            ) from None
        if found is None:
            there = [each for each, value in vars(sys.modules[module]).items() if _is_optimizer(value)]
            raise ConfigError(f"{key}: {module} has no {name}{nearest(name, there)}")
    if not _is_optimizer(found):
        raise ConfigError(f"{key}: {path} is no subclass of torch.optim.Optimizer")
    needed = inspect.signature(found.step).parameters.get("closure")
    if needed is not None and needed.default is inspect.Parameter.empty:
        raise ConfigError(
            f"{key}: {path} wants a closure that computes the loss anew, several times a step; only optimizers whose "
            "step needs none can be used here: train with a function of your own"
        )
    kind: type[torch.optim.Optimizer] = found
    return kind


def _is_optimizer(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)


def _parameters_of(kind: type[torch.optim.Optimizer], optimizer: Optimizer) -> dict[str, Any]:
    """What the class is built with, with the declared types."""
    try:
        parameters = inspect.signature(kind).parameters
        hints = typing.get_type_hints(kind.__init__)
    except (TypeError, ValueError, NameError):
        parameters, hints = inspect.signature(kind).parameters, {}
    if "lr" not in parameters:
        raise ConfigError(f"train.optimizer.name: {optimizer.name} takes no lr, which the schedule sets")
    return {name: hints.get(name, Any) for name in parameters}


def scheduled_lr(scheduler: Scheduler, base_lr: float, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """The learning rate of step `step` (0-based) of `total_steps`.

    Warm-up rises linearly over the first `warmup_steps` steps to the schedule's first rate; the schedule then covers
    the remaining steps. For onecycle, `base_lr` is the peak.
    """
    warmup = min(scheduler.warmup_steps, total_steps)
    if step < warmup:
        # Starts above 0, so that the first step trains.
        return _shape(scheduler, base_lr, 0, max(1, total_steps - warmup), steps_per_epoch) * (step + 1) / (warmup + 1)
    return _shape(scheduler, base_lr, step - warmup, max(1, total_steps - warmup), steps_per_epoch)


def _shape(scheduler: Scheduler, lr: float, step: int, total: int, steps_per_epoch: int) -> float:
    match scheduler.name:
        case "none":
            return lr
        case "step":
            return float(lr * scheduler.gamma ** (step // (scheduler.step_size * steps_per_epoch)))
        case "cosine":  # One period without restarts of SGDR (Loshchilov & Hutter 2017).
            return 0.5 * lr * (1 + math.cos(math.pi * step / total))
        case "onecycle":
            return lr * _onecycle(step, total)


def _onecycle(step: int, total: int) -> float:
    # The last step of the rise, as OneCycleLR counts it.
    peak = max(0.0, _ONECYCLE_RISE * total - 1)
    if step < peak:
        return _cosine_between(_ONECYCLE_START, 1.0, step / peak)
    return _cosine_between(1.0, _ONECYCLE_END, (step - peak) / max(1.0, total - 1 - peak))


def _cosine_between(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))
