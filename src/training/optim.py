"""Optimizers and learning-rate schedules by name.

A schedule is a pure function of the step, so a resumed run has no schedule state to restore.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Parameter

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
    parameters: Iterable[Parameter], optimizer: Optimizer, device: torch.device | None = None
) -> torch.optim.Optimizer:
    """The optimizer that `optimizer.name` names; on a GPU, its fused kernels where torch has them.

    Weight decay is decoupled for adamw only (Loshchilov & Hutter 2019); for the others it is an L2 penalty. Without
    `optimizer.decay_norm_bias`, it is for convolutions and matrices only.
    """
    kind = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
    }[optimizer.name]
    options: dict[str, Any] = {"lr": optimizer.lr, "weight_decay": optimizer.weight_decay}
    if optimizer.name in ("sgd", "rmsprop"):
        options["momentum"] = optimizer.momentum
    if device is not None and device.type == "cuda" and optimizer.name != "rmsprop":
        options["fused"] = True
    if optimizer.decay_norm_bias:
        return _without_compiler(kind)(list(parameters), **options)
    # Biases and the parameters of normalisation have one dimension.
    all_parameters = list(parameters)
    groups = [
        {"params": [parameter for parameter in all_parameters if parameter.dim() > 1]},
        {"params": [parameter for parameter in all_parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return _without_compiler(kind)(groups, **options)


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
