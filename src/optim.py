"""Optimizers and learning-rate schedules by name.

A schedule is a pure function of the step, so that a run which resumes has no schedule state to restore.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.nn import Parameter

from src.schema import Optimizer, Scheduler

# onecycle's shape (Smith & Topin 2018), with the fractions that torch's OneCycleLR has as defaults.
_ONECYCLE_RISE = 0.3
_ONECYCLE_START = 1 / 25
_ONECYCLE_END = _ONECYCLE_START / 1e4


def make_optimizer(parameters: Iterable[Parameter], optimizer: Optimizer) -> torch.optim.Optimizer:
    """The optimizer that `optimizer.name` names; weight decay is decoupled for adamw alone."""
    parameters = list(parameters)
    lr, decay, momentum = optimizer.lr, optimizer.weight_decay, optimizer.momentum
    match optimizer.name:
        case "sgd":
            return torch.optim.SGD(parameters, lr=lr, weight_decay=decay, momentum=momentum)
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=lr, weight_decay=decay, momentum=momentum)


def scheduled_lr(scheduler: Scheduler, base_lr: float, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """The learning rate of step `step` (0-based) of `total_steps`.

    Warm-up rises linearly over the first `warmup_steps` steps to what the schedule gives there; the schedule itself
    then runs over the steps that remain. For onecycle `base_lr` is the peak.
    """
    warmup = min(scheduler.warmup_steps, total_steps)
    if step < warmup:
        return _shape(scheduler, base_lr, 0, max(1, total_steps - warmup), steps_per_epoch) * (step + 1) / (warmup + 1)
    return _shape(scheduler, base_lr, step - warmup, max(1, total_steps - warmup), steps_per_epoch)


def _shape(scheduler: Scheduler, lr: float, step: int, total: int, steps_per_epoch: int) -> float:
    match scheduler.name:
        case "none":
            return lr
        case "step":
            return float(lr * scheduler.gamma ** (step // (scheduler.step_size * steps_per_epoch)))
        case "cosine":
            return 0.5 * lr * (1 + math.cos(math.pi * step / total))
        case "onecycle":
            return lr * _onecycle(step, total)


def _onecycle(step: int, total: int) -> float:
    peak = max(0.0, _ONECYCLE_RISE * total - 1)
    if step < peak:
        return _cosine_between(_ONECYCLE_START, 1.0, step / peak)
    return _cosine_between(1.0, _ONECYCLE_END, (step - peak) / max(1.0, total - 1 - peak))


def _cosine_between(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))
