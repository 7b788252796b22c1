"""Example images of a training as one small PNG file: the first row as they are, the second row after augmentation."""

from __future__ import annotations

import io

import torch
from torch import Tensor
from torch.nn import functional

from src.config.schema import Config
from src.data.loader import TrainLoader, from_network

# Each run has them, and a sweep may have thousands of runs: about 80 kB for photographs of 64x64 pixels.
_COUNT = 4
_MOST_PIXELS = 64
_LEAST_PIXELS = 32


def examples_png(config: Config, loader: TrainLoader) -> bytes | None:
    """The first images of the first batch, before augmentation above after augmentation, without gaps between them.
    None for inputs that are no images.

    They depend on the configuration alone, so each attempt at a run draws the same ones.
    """
    from PIL import Image

    raw, _ = loader.raw(0, 0)
    if raw.dtype != torch.uint8:
        return None
    after = from_network(loader.prepare(raw, 0, 0)[:_COUNT], config)
    rows = [_fitted(images).permute(2, 0, 3, 1).flatten(1, 2) for images in (raw[:_COUNT].float() / 255, after)]
    file = io.BytesIO()
    # uint8 (2 H, count W, C); Pillow wants grey as (2 H, count W).
    pixels = (torch.cat(rows) * 255).round().byte().cpu().numpy()
    Image.fromarray(pixels.squeeze(2) if config.preprocess.channels == 1 else pixels).save(file, "png")
    return file.getvalue()


def _fitted(images: Tensor) -> Tensor:
    """float32 (B, C, H, W) in a size that is easy to see and small to store."""
    side = max(images.shape[2:])
    scale = min(max(side, _LEAST_PIXELS), _MOST_PIXELS) / side
    if scale == 1:
        return images
    return functional.interpolate(images, scale_factor=scale, mode="nearest" if scale > 1 else "area")
