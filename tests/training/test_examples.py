"""The example images of a run, in every mode."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.config.schema import Config
from src.data.dataset import load
from src.data.found import with_found
from src.data.loader import TrainLoader
from src.training.examples import examples_png


def in_mode(small: Callable[..., Config], mode: str, **changes: Any) -> Config:
    """The small experiment on images of this mode."""
    given = {"preprocess__normalize": "auto", "model__input_shape": "auto", "augment__color_jitter": None, **changes}
    return with_found(small(preprocess__mode=mode, **given))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_first_row_is_the_images_as_they_are(small: Callable[..., Config], mode: str) -> None:
    config = in_mode(small, mode)
    train = load(config).train
    loader = TrainLoader(config, train, torch.device("cpu"))
    with Image.open(io.BytesIO(examples_png(config, loader))) as image:
        assert (image.mode, image.size) == (mode, (4 * 32, 2 * 32))
        shown = np.atleast_3d(np.asarray(image))
    raw, _ = loader.raw(0, 0)
    first = np.repeat(np.repeat(raw[0].permute(1, 2, 0).numpy(), 2, axis=0), 2, axis=1)
    assert np.array_equal(shown[:32, :32], first)
    # Flipped and moved, they have no colours that were not there.
    assert set(np.unique(shown[32:])) <= {0, *np.unique(raw[:4].numpy())}
