"""Mixtures of training images and their labels: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

Every image of a batch is mixed with the one before it; batches are shuffled, so this is a random partner. All images of
a batch have the same mixture, drawn from (seed, epoch, batch) alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from src.config.train_section import Train
from src.data.augment import stream_seed


@dataclass(frozen=True)
class Mix:
    """The mixture of one batch. `share`: of each image itself, the rest is its partner's.

    `box`: top, bottom, left and right, in pixels, of what is replaced by the partner's; None if all pixels are mixed.
    """

    share: float
    box: tuple[int, int, int, int] | None = None

    def images(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> a new tensor of the same shape."""
        partners = images.roll(1, 0)
        if self.box is None:
            return self.share * images + (1 - self.share) * partners
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed

    def loss(self, loss_of: Callable[[Tensor], Tensor], labels: Tensor) -> Tensor:
        """The loss against both labels by their shares; `loss_of` maps labels (B,) to a loss ()."""
        return self.share * loss_of(labels) + (1 - self.share) * loss_of(labels.roll(1, 0))


def draw_mix(train: Train, size: tuple[int, int], *, epoch: int, batch: int) -> Mix | None:
    """The mixture of batch number `batch` of `epoch`, for images of (height, width); None if there is none."""
    kinds = [kind for kind, alpha in (("mixup", train.mixup), ("cutmix", train.cutmix)) if alpha]
    if not kinds or train.overfit_small:
        return None
    random = np.random.default_rng(stream_seed("mix", train.seed, epoch, batch))
    if kinds[random.integers(len(kinds))] == "mixup":
        return Mix(float(random.beta(train.mixup, train.mixup)))
    share = float(random.beta(train.cutmix, train.cutmix))
    sides = []
    for edge in size:
        half, centre = int(edge * math.sqrt(1 - share)) // 2, int(random.integers(edge))
        sides.append((max(0, centre - half), min(edge, centre + half)))
    (top, bottom), (left, right) = sides
    # Of what the image's border leaves of the box.
    return Mix(1 - (bottom - top) * (right - left) / math.prod(size), (top, bottom, left, right))
