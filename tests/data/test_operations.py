from __future__ import annotations

from collections.abc import Callable

import pytest

from src.config.schema import Augment, Config
from src.data.augment import Augmenter
from src.data.operations import augmentations, preprocessing


def test_the_parameters_are_the_configured_ones(small: Callable[..., Config]) -> None:
    operations = {each["operation"]: each["parameters"] for each in preprocessing(small())}
    assert list(operations) == ["RGB", "Resize", "ToFloat", "Normalize"]
    assert operations["Resize"]["size"] == [16, 16]
    assert operations["Normalize"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize(
    ("mode", "channels", "says"), [("L", 1, "0.299 red"), ("RGBA", 4, "kept"), ("RGB", 3, "repeated on three")]
)
def test_the_mode_is_the_first_operation(small: Callable[..., Config], mode: str, channels: int, says: str) -> None:
    statistics = {"mean": [0.5] * channels, "std": [0.2] * channels}
    config = small(
        preprocess__mode=mode, preprocess__normalize=statistics, model__input_shape="auto", augment__color_jitter=None
    )
    first = preprocessing(config)[0]
    assert first["operation"] == mode
    assert says in str(first["parameters"])


def test_the_augmentations_are_those_that_are_drawn(small: Callable[..., Config]) -> None:
    config = small(augment__color_jitter={"brightness": 0.3, "hue": 0.1})
    flip, crop, jitter = augmentations(config)
    draw = Augmenter(config.augment, (16, 16)).draw(4000, seed=1, epoch=0, batch=0)
    assert draw.flip.float().mean().item() == pytest.approx(flip["probability"], abs=0.03)
    assert int(draw.top.max()) == 2 * crop["parameters"]["padding"]
    for column, name in ((0, "brightness"), (3, "hue")):
        low, high = draw.factors[:, column].min().item(), draw.factors[:, column].max().item()
        assert [low, high] == pytest.approx(jitter["parameters"][name], abs=0.01)
    assert "contrast" not in jitter["parameters"]
    assert "2 pixels (12% of an edge)" in crop["unless"]


def test_no_augmentation_is_an_empty_list(small: Callable[..., Config]) -> None:
    off = {"augment.random_flip": False, "augment.random_crop": None, "augment.color_jitter": None}
    assert augmentations(small(**off)) == []
    assert Augment().random_crop is None
