"""What is done to the images, as facts: the preprocessing of all splits and the augmentation of training images.

src/data/decoding.py, src/data/loader.py and src/data/augment.py do it; this file describes it, for D6 to D9 of the
report.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from src.config.schema import Augment, ColorJitter, Config

# An operation with its exact parameters, as plain values.
Operation = dict[str, Any]


def preprocessing(config: Config) -> list[Operation]:
    """The operations on every image of every split, in order: `operation`, `parameters`, `purpose`."""
    normalize, size = config.preprocess.normalize, list(config.preprocess.resize)
    return [
        {
            "operation": "RGB",
            "parameters": {
                "grey": "repeated on three channels",
                "transparency": "over black",
                "16 bits": "value / 256",
            },
            "purpose": "three channels for every image",
        },
        {
            "operation": "Resize",
            "parameters": {"size": size, "interpolation": "bilinear, with antialiasing"},
            "purpose": "one size for every image; an image of this size is unchanged",
        },
        {"operation": "ToFloat", "parameters": {"divisor": 255}, "purpose": "values in [0, 1]"},
        {
            "operation": "Normalize",
            "parameters": {"mean": list(normalize.mean), "std": list(normalize.std)},
            "purpose": "channels of about mean 0 and standard deviation 1",
        },
    ]


def augmentations(config: Config) -> list[Operation]:
    """The random operations on training images, in order; [] if there are none.

    `probability`: of the operation being applied to an image. `keeps_label`: whether it keeps the class of an image of
    an everyday object. `unless`: when it would not. The last two are facts about the operation; whether they hold for
    a data set, only who knows its classes can say.
    """
    augment = config.augment
    return [*_flip(augment), *_crop(augment), *_jitter(augment)]


def _flip(augment: Augment) -> Iterator[Operation]:
    if augment.random_flip:
        yield {
            "operation": "RandomHorizontalFlip",
            "parameters": {},
            "probability": 0.5,
            "keeps_label": True,
            "unless": "left and right differ between classes: text, digits, arrows, left and right hands",
        }


def _crop(augment: Augment) -> Iterator[Operation]:
    crop = augment.random_crop
    if crop is None:
        return
    share = crop.padding / crop.size
    yield {
        "operation": "RandomCrop",
        "parameters": {"size": [crop.size, crop.size], "padding": crop.padding, "fill": 0},
        "probability": 1.0,
        "keeps_label": True,
        "unless": f"what decides the class lies within {crop.padding} pixels ({share:.0%} of an edge) of the border",
    }


def _jitter(augment: Augment) -> Iterator[Operation]:
    jitter = augment.color_jitter or ColorJitter()
    spreads = {"brightness": jitter.brightness, "contrast": jitter.contrast, "saturation": jitter.saturation}
    ranges = {name: [max(0.0, 1 - spread), 1 + spread] for name, spread in spreads.items() if spread > 0}
    if jitter.hue > 0:
        ranges["hue"] = [-jitter.hue, jitter.hue]
    if not ranges:
        return
    colour = "; the hue shifts by up to half a circle, so any colour may become any other" if jitter.hue == 0.5 else ""
    yield {
        "operation": "ColorJitter",
        "parameters": {**ranges, "order": "random for each image"},
        "probability": 1.0,
        "keeps_label": True,
        "unless": f"classes differ only by colour or brightness within these ranges{colour}",
    }
