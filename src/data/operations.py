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
# What src/data/decoding.py does to images of other modes than preprocess.mode.
_CONVERSIONS = {
    "RGB": {"grey": "repeated on three channels", "transparency": "over black"},
    "L": {"colours": "0.299 red + 0.587 green + 0.114 blue", "transparency": "over black"},
    "RGBA": {"grey": "repeated on three channels", "transparency": "kept; images without any are opaque"},
}
_PURPOSES = {
    "RGB": "three channels for every image",
    "L": "one channel for every image",
    "RGBA": "four channels for every image",
}


def preprocessing(config: Config, *, images: bool = True) -> list[Operation]:
    """The operations on every input of every split, in order: `operation`, `parameters`, `purpose`.

    `images`: whether the inputs are images; others are only normalised.
    """
    statistics, size, mode = config.preprocess.statistics, list(config.preprocess.resize), config.preprocess.mode
    of_images: list[Operation] = [
        {"operation": mode, "parameters": {**_CONVERSIONS[mode], "16 bits": "value / 256"}, "purpose": _PURPOSES[mode]},
        {
            "operation": "Resize",
            "parameters": {"size": size, "interpolation": "bilinear, with antialiasing"},
            "purpose": "one size for every image; an image of this size is unchanged",
        },
        {"operation": "ToFloat", "parameters": {"divisor": 255}, "purpose": "values in [0, 1]"},
    ]
    normalize = {
        "operation": "Normalize",
        "parameters": {"mean": list(statistics.mean), "std": list(statistics.std)} if statistics else {},
        "purpose": f"{'channels' if images else 'values'} of about mean 0 and standard deviation 1",
    }
    return [*(of_images if images else []), *([normalize] if statistics else [])]


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
