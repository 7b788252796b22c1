"""What `auto` stands for in a configuration: the classes, the shape of an input, and the mean and deviation.

Resolved where runs are planned, so that each run's configuration has the values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from relay.errors import ConfigError
from src.config.loading import with_values
from src.config.schema import ALWAYS_IN_TOP5, Config, Preprocess
from src.data.dataset import ImageData, ImageSubset, load
from src.data.inputs import are_images

# Inputs whose sums are computed at a time.
_BATCH = 512


def with_found(config: Config, load: Callable[[Config], ImageData] = load) -> Config:
    """The configuration with values in place of each `auto` that the data decides; itself if there is none.

    `load`: gives the data, if an `auto` needs it. Raises what it raises, and ConfigError if the values do not fit.
    """
    model, normalize, found = config.model, config.preprocess.normalize, dict[str, Any]()
    of_images = [config.preprocess.channels, *config.preprocess.resize]
    if not config.has_own_data and model.input_shape == "auto":
        found["model.input_shape"] = of_images
    # The default is that of images, and inputs of another shape are none.
    if (
        config.has_own_data
        and model.input_shape not in ("auto", tuple(of_images))
        and normalize == Preprocess().normalize
    ):
        found["preprocess.normalize"] = None
    if (config.has_own_data and model.input_shape == "auto") or model.num_classes == "auto" or normalize == "auto":
        data = load(config)
        part = data.train
        if model.num_classes == "auto":
            found["model.num_classes"] = len(data.class_names)
        if config.has_own_data and model.input_shape == "auto":
            found["model.input_shape"] = of_images if are_images(part.images) else list(part.images.shape[1:])
        if normalize == "auto":
            found["preprocess.normalize"] = _statistics(part)
        elif normalize == Preprocess().normalize and not are_images(part.images):
            found["preprocess.normalize"] = None
    made = with_values(config, found) if found else config
    select, classes = made.metrics.select, made.model.num_classes
    if select.name == "top5_accuracy" and classes != "auto" and classes <= ALWAYS_IN_TOP5:
        raise ConfigError(
            f"metrics.select.name: top5_accuracy is always 1 with {classes} classes; select by accuracy, macro_f1 or "
            "loss"
        )
    return made


def _statistics(part: ImageSubset) -> dict[str, list[float]]:
    """The mean and deviation of each channel over the inputs of `part`, of values in [0, 1] for images."""
    channels, scale = part.images.shape[1], 255 if are_images(part.images) else 1
    others = (0, *range(2, part.images.ndim))
    # In float64 and in the order of the indices: the same inputs give the same digits everywhere.
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for start in range(0, len(part), _BATCH):
        inputs = np.asarray(part.images[part.indices[start : start + _BATCH]], dtype=np.float64) / scale
        total += inputs.sum(axis=others)
        squares += (inputs**2).sum(axis=others)
        count += inputs.size // channels
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # What is constant is only shifted.
    deviation[deviation < 1e-6 * np.maximum(1, abs(mean))] = 1.0
    return {"mean": [float(f"{each:.7g}") for each in mean], "std": [float(f"{each:.7g}") for each in deviation]}
