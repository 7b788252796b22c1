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
    """The optimizer and its rate. A class that `name` is the path of is given `lr`, `weight_decay` and `momentum` if it
    takes them.
    """

    name: str = "adam"
    """`sgd`, `adam`, `adamw`, `rmsprop`, or the path of a class: torch.optim.NAdam, or module:Class of the project."""
    lr: Annotated[float, Field(gt=0)] = 0.002
    """The learning rate."""
    weight_decay: NonNegative = 0.00001
    """The weight decay."""
    momentum: Fraction = 0.9
    """The momentum of sgd and rmsprop."""
    decay_norm_bias: bool = True
    """Whether the weight decay also applies to biases and the parameters of BatchNorm."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the optimizer."""


class Scheduler(Section):
    """The learning rate over time."""

    name: Literal["none", "step", "cosine", "onecycle"] = "none"
    """How the learning rate changes over time."""
    step_size: Count = 10
    """The epochs between two drops of `step`."""
    gamma: Annotated[float, Field(gt=0)] = 0.1
    """The factor of each drop of `step`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """The steps at the beginning in which the rate rises linearly."""


class Train(Section):
    """One training."""

    seed: int = 42
    """The seed of the weights, the order of the images and the augmentation."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """`cpu`, `cuda`, `cuda:N` or `mps`. `auto`: a GPU if there is one."""
    batch_size: Count = 32
    """The images of a step."""
    epochs: Count = 40
    """The epochs of a full training."""
    max_steps: Count | None = None
    """End after so many steps, even within an epoch. Null: after the last epoch."""
    overfit_small: bool = False
    """Train on `overfit_size` images only, without augmentation, mixing or smoothing (M3 of the report)."""
    overfit_size: Count = 32
    """The images of `overfit_small`."""
    overfit_epochs: Count = 20
    """The epochs of `overfit_small`, in place of `epochs`."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """The arithmetic on a GPU. `auto`: the fastest that was measured."""
    compile: bool = False
    """Compile the network with torch.compile."""
    label_smoothing: Fraction = 0.0
    """The share of each label that is spread over all classes."""
    mixup: NonNegative = 0.0
    """The parameter of the Beta distribution that mixes two images. 0: off. With `cutmix`, each batch has one of them.
    """
    cutmix: NonNegative = 0.0
    """The parameter of the Beta distribution that pastes a window of another image. 0: off."""
    ema_decay: Fraction = 0.0
    """Val and best.ckpt use a moving average of the weights with this decay. 0: the weights themselves."""
    optimizer: Optimizer = Optimizer()
    """What updates the weights."""
    scheduler: Scheduler = Scheduler()
    """How the learning rate changes."""
