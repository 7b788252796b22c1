"""Which inputs are images, and what can be done with those that are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.errors import DataError
from src.config.schema import Augment, Config, Preprocess
from src.models.registry import is_ours


def are_images(stored: npt.NDArray[Any]) -> bool:
    """Whether inputs, as they are stored, are images: uint8 (N, C, H, W)."""
    return stored.dtype == np.uint8


def check_inputs(config: Config, stored: npt.NDArray[Any]) -> None:
    """Raise DataError, which lists all problems, if the configuration does not fit inputs that are stored so."""
    problems = list(_problems(config, stored)) if config.has_own_data else []
    if problems:
        raise DataError("\n".join(problems))


def _problems(config: Config, stored: npt.NDArray[Any]) -> Iterator[str]:
    preprocess, shape = config.preprocess, list(stored.shape[1:])
    is_image, of_images = are_images(stored), [preprocess.channels, *preprocess.resize]
    given = of_images if is_image else shape
    kind = "images" if is_image else f"{stored.dtype} inputs of shape {shape}"
    wanted = config.model.input_shape
    if wanted != "auto" and list(wanted) != given:
        yield f"model.input_shape: {list(wanted)}, but {config.dataset.name} gives {given}; set it to auto"
    if not isinstance(preprocess.normalize, str | None) and preprocess.normalize != Preprocess().normalize:
        for name, values in (("mean", preprocess.normalize.mean), ("std", preprocess.normalize.std)):
            if len(values) != given[0]:
                yield (
                    f"preprocess.normalize.{name}: {len(values)} values, but inputs of shape {given} have "
                    f"{given[0]} in their first dimension; give as many, or auto"
                )
    if is_image:
        return
    if is_ours(config.model.type):
        yield (
            f"model.type: {config.model.type} needs images, and {config.dataset.name} gives {kind}; name a network of "
            "your own, module:function"
        )
    usual = Preprocess()
    if preprocess.normalize == usual.normalize and wanted != "auto" and list(wanted) == of_images:
        yield (
            f"preprocess.normalize: the default is for images, and {config.dataset.name} gives {kind}; set it to null "
            "or auto"
        )
    for name in ("resize", "mode"):
        if getattr(preprocess, name) != getattr(usual, name):
            yield f"preprocess.{name}: is for images, and {config.dataset.name} gives {kind}; remove it"
    for name in Augment.model_fields:
        if getattr(config.augment, name) != getattr(Augment(), name):
            yield f"augment.{name}: is for images, and {config.dataset.name} gives {kind}; remove it"
    if config.metrics.test_time_flip:
        yield f"metrics.test_time_flip: is for images, and {config.dataset.name} gives {kind}; remove it"
    if config.train.cutmix:
        yield f"train.cutmix: is for images, and {config.dataset.name} gives {kind}; set it to 0"
    if stored.dtype == np.int64:
        if config.train.mixup:
            yield f"train.mixup: {config.dataset.name} gives whole numbers, which cannot be mixed; set it to 0"
        if preprocess.normalize not in (None, usual.normalize):
            yield (
                f"preprocess.normalize: {config.dataset.name} gives whole numbers, which are passed on as they are; "
                "set it to null, or return floating-point numbers"
            )
