"""Training batches by number: any batch of any epoch is computed without those before it."""

from __future__ import annotations

import torch
from torch import Tensor

from src.config.schema import Config
from src.data.augment import Augmenter, epoch_order, joined, normalize
from src.data.dataset import ImageSubset

# On a GPU, as many batches as have this many images together are augmented at once: for a small batch, starting the
# kernels takes longer than running them.
_AUGMENTED_AT_ONCE = 512
# A training set that takes less than this share of a GPU's free memory stays on the GPU, so that batches need no
# transfer. Tiny ImageNet takes 1.2 GB (100,000 images of 3 x 64 x 64 bytes). The rest is for the network.
_RESIDENT_SHARE = 0.4


class TrainLoader:
    """Augmented, normalised batches of the training images, on the device.

    With `train.overfit_small`, the training images are `train.overfit_size` of `part`, without augmentation.
    """

    def __init__(self, config: Config, part: ImageSubset, device: torch.device) -> None:
        self._config, self._part, self._device = config, part, device
        self._positions = torch.arange(len(part))
        self._augmenter: Augmenter | None = Augmenter(config.augment, config.preprocess.resize)
        if config.train.overfit_small:
            # A random choice: data sets are often sorted by label, and the first images may be of one class.
            self._positions = epoch_order(config.train.seed, 0, len(part), True)[: config.train.overfit_size]
            self._augmenter = None
        self._order_epoch = -1
        self._order = self._positions
        self._group = max(1, _AUGMENTED_AT_ONCE // config.train.batch_size) if device.type == "cuda" else 1
        self._prepared_key = (-1, -1)
        self._prepared: list[tuple[Tensor, Tensor]] = []
        self._resident = _resident(part, device)

    @property
    def per_epoch(self) -> int:
        """Batches per epoch; the last one may be smaller."""
        return -(-len(self._positions) // self._config.train.batch_size)

    @property
    def images_per_epoch(self) -> int:
        """Images per epoch."""
        return len(self._positions)

    def raw(self, epoch: int, batch: int, batches: int = 1) -> tuple[Tensor, Tensor]:
        """Batch `batch` of `epoch`, both from 0, unchanged: uint8 (B, C, H, W), labels int64 (B,), on the device.

        With `batches`, this one and those that follow it, as one.
        """
        seed, size = self._config.train.seed, self._config.train.batch_size
        if epoch != self._order_epoch:
            drawn = epoch_order(seed, epoch, len(self._positions), self._config.dataset.shuffle)
            self._order, self._order_epoch = self._positions[drawn], epoch
        chosen = self._order[batch * size : (batch + batches) * size]
        if self._resident is not None:
            images, labels = self._resident
            there = chosen.to(self._device)
            return images[there], labels[there]
        images, labels = self._part.take(chosen)
        return images.to(self._device), labels.to(self._device)

    def get(self, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """The same batch for the network: float32 (B, C, H, W), augmented and normalised, and labels int64 (B,)."""
        first = batch - batch % self._group
        if self._prepared_key != (epoch, first):
            raw, labels = self.raw(epoch, first, self._group)
            size = self._config.train.batch_size
            pairs = zip(torch.split(self.prepare(raw, epoch, first), size), torch.split(labels, size), strict=True)
            self._prepared_key, self._prepared = (epoch, first), list(pairs)
        return self._prepared[batch - first]

    def prepare(self, raw: Tensor, epoch: int, batch: int) -> Tensor:
        """What is stored, as `ImageSubset.take` returns it -> what the network takes, see `to_network`; of images with
        the augmentation of this epoch and batch.

        More images than a batch has are those of the batches that follow it, each with its own augmentation.
        """
        if self._augmenter is None or raw.dtype != torch.uint8:
            return to_network(raw, self._config)
        seed, size = self._config.train.seed, self._config.train.batch_size
        counts = [min(size, len(raw) - start) for start in range(0, len(raw), size)]
        draw = joined(
            [
                self._augmenter.draw(count, seed=seed, epoch=epoch, batch=batch + number)
                for number, count in enumerate(counts)
            ]
        )
        images = self._augmenter.flip_and_crop(raw, draw).float().div_(255)
        return _normalized(self._augmenter.jitter_colours(images, draw), self._config)


def to_network(raw: Tensor, config: Config) -> Tensor:
    """What is stored -> what the network takes, without augmentation.

    Images uint8 (B, C, H, W) -> float32 (B, C, H, W), in [0, 1] and then normalised; float32 (B, ...) -> normalised;
    int64 (B, ...) unchanged.
    """
    if raw.dtype == torch.int64:
        return raw
    return _normalized(raw.float() / 255 if raw.dtype == torch.uint8 else raw, config)


def from_network(images: Tensor, config: Config) -> Tensor:
    """Normalised images float32 (B, C, H, W) -> in [0, 1], to be looked at."""
    statistics = config.preprocess.statistics
    if statistics is None:
        return images.clamp(0, 1)
    mean, std = (
        torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (statistics.mean, statistics.std)
    )
    return (images * std + mean).clamp(0, 1)


def _normalized(values: Tensor, config: Config) -> Tensor:
    """(B, C, ...) float32 -> the same with the configured mean and deviation of each of C; unchanged without them."""
    statistics = config.preprocess.statistics
    return values if statistics is None else normalize(values, statistics.mean, statistics.std)


def _resident(part: ImageSubset, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """All images and labels of `part` on the GPU; None if they stay in host memory."""
    if device.type != "cuda":
        return None
    free_bytes, _ = torch.cuda.mem_get_info(device)
    if part.images[0].nbytes * len(part) > free_bytes * _RESIDENT_SHARE:
        return None
    images, labels = part.take(torch.arange(len(part)))
    return images.to(device), labels.to(device)
