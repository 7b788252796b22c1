"""The `train` section of the configuration."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from relay.config.sections import Count, Fraction, NonNegative, Section
from relay.program.own_code import is_own

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")


def is_path(name: str) -> bool:
    """Whether `train.optimizer.name` is the path of a class: package.module.Class, or module:Class of the project."""
    return is_own(name) or re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name) is not None


class Optimizer(Section):
    """The optimizer and its rate. Only sgd and rmsprop use `momentum`.

    `name` may also be the path of a class, such as torch.optim.NAdam, or my_optimizers:Mine of the project. It is given
    `lr`, `weight_decay` and `momentum` if it takes them. `options`: what else the optimizer is built with.

    Without `decay_norm_bias`, the weight decay leaves out biases and the parameters of BatchNorm.
    """

    name: str = "adam"
    lr: Annotated[float, Field(gt=0)] = 0.002
    weight_decay: NonNegative = 0.00001
    momentum: Fraction = 0.9
    decay_norm_bias: bool = True
    options: dict[str, Any] = Field(default_factory=dict)


class Scheduler(Section):
    """The learning rate over time; `step_size` is in epochs, `warmup_steps` in steps."""

    name: Literal["none", "step", "cosine", "onecycle"] = "none"
    step_size: Count = 10
    gamma: Annotated[float, Field(gt=0)] = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class Train(Section):
    """One training; `max_steps` may end it before `epochs` do. Precision `auto` is the fastest that was measured.

    `mixup` and `cutmix`: the parameter of the Beta distribution from which the share of a batch's mixture is drawn;
    0 switches them off, and with both, each batch has one of them. `ema_decay`: val and best.ckpt take the moving
    average of the weights; 0 is the weights themselves.
    """

    seed: int = 42
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    batch_size: Count = 32
    epochs: Count = 40
    max_steps: Count | None = None
    # Train on `overfit_size` images only, for `overfit_epochs` instead of `epochs` (M3 of the report). Images and
    # labels are then neither augmented, mixed nor smoothed.
    overfit_small: bool = False
    overfit_size: Count = 32
    overfit_epochs: Count = 20
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    compile: bool = False
    label_smoothing: Fraction = 0.0
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    ema_decay: Fraction = 0.0
    optimizer: Optimizer = Optimizer()
    scheduler: Scheduler = Scheduler()
