"""Augmentation of whole batches on the device; all random numbers are drawn from (seed, epoch, batch) alone.

`Augmenter.draw` draws on the CPU, so that all devices agree; `flip_and_crop` and `jitter_colours` transform images and
never synchronise with the device. Each operation matches torchvision.transforms.functional (tests/data/test_augment.py
compares them), with one parameter per sample. For comparison, the report's program, which augments with PIL on 2 CPU
cores, trained at 619 images/s on a slice. Images are float32 (B, C, H, W) in [0, 1]; parameter vectors have length B
and are on the CPU. Brightness and contrast are for 1 or 3 channels, saturation and hue for 3, the rest for any number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from src.config.schema import Augment, ColorJitter

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # as torchvision's ColorJitter numbers them


@dataclass(frozen=True)
class Draw:
    """The random parameters of one batch, on the CPU."""

    flip: Tensor  # bool (B,)
    top: Tensor  # int64 (B,), in pixels of the padded image
    left: Tensor  # int64 (B,)
    order: Tensor  # int64 (B, 4): the colour operations of each sample, first to last
    factors: Tensor  # float64 (B, 4): brightness, contrast, saturation, hue


def joined(draws: Sequence[Draw]) -> Draw:
    """The parameters of several batches as those of one."""
    if len(draws) == 1:
        return draws[0]
    return Draw(*(torch.cat([getattr(draw, each.name) for draw in draws]) for each in fields(Draw)))


class Augmenter:
    """Flip, crop and colour jitter, in that order, for images of `size` (height, width)."""

    def __init__(self, augment: Augment, size: tuple[int, int]) -> None:
        self.flip = augment.random_flip
        self.crop = augment.random_crop
        self.jitter = augment.color_jitter or ColorJitter()
        self.size = size
        spreads = (self.jitter.brightness, self.jitter.contrast, self.jitter.saturation, self.jitter.hue)
        self.colour_ops = tuple(op for op, spread in enumerate(spreads) if spread > 0)

    def __call__(self, images: Tensor, *, seed: int, epoch: int, batch: int) -> Tensor:
        """Augment batch number `batch` of `epoch`; images float32 (B, C, H, W) in [0, 1] on any device."""
        draw = self.draw(len(images), seed=seed, epoch=epoch, batch=batch)
        return self.jitter_colours(self.flip_and_crop(images, draw), draw)

    def draw(self, count: int, *, seed: int, epoch: int, batch: int) -> Draw:
        """Parameters for `count` samples.

        All are drawn whether they are used or not, so disabling one operation does not change the others.
        """
        # A generator per batch: a resumed run reaches any batch without drawing for those before it.
        generator = torch.Generator().manual_seed(stream_seed("augment", seed, epoch, batch))
        flip = torch.rand(count, generator=generator) < 0.5
        spans = self._crop_spans()
        top, left = (torch.randint(span, (count,), generator=generator) for span in spans)
        # Sorting random numbers gives each sample a permutation of its own; torch.randperm makes only one.
        order = torch.rand(count, 4, generator=generator).argsort(dim=1)
        jitter = self.jitter
        ranges = [(max(0.0, 1 - v), 1 + v) for v in (jitter.brightness, jitter.contrast, jitter.saturation)]
        low, high = torch.tensor([*ranges, (-jitter.hue, jitter.hue)], dtype=torch.float64).T
        factors = low + (high - low) * torch.rand(count, 4, generator=generator, dtype=torch.float64)
        return Draw(flip, top, left, order, factors)

    def _crop_spans(self) -> tuple[int, int]:
        """The number of positions of a crop: vertical, horizontal."""
        if self.crop is None:
            return 1, 1
        height, width = (edge + 2 * self.crop.padding - self.crop.size + 1 for edge in self.size)
        if min(height, width) < 1:
            raise ValueError(f"a crop of {self.crop.size} does not fit {self.size} with padding {self.crop.padding}")
        return height, width

    def flip_and_crop(self, images: Tensor, draw: Draw) -> Tensor:
        """The geometric part. The images may be uint8 too: pixels only change their places, and bytes are faster."""
        if self.flip:
            images = flip(images, draw.flip)
        if self.crop is not None:
            images = crop(images, draw.top, draw.left, self.crop.size, self.crop.padding)
        return images

    def jitter_colours(self, images: Tensor, draw: Draw) -> Tensor:
        """The colour part, of float32 images; a new tensor unless it is disabled."""
        if not self.colour_ops:
            return images
        # Each sample has its own order of operations. Hue, the costliest, runs once for the whole batch; the blends run
        # in rounds before and after it. Samples with more blends before hue come first, so that each round is a slice.
        rows = [[op for op in row if op in self.colour_ops] for row in draw.order.tolist()]
        places = [row.index(HUE) if HUE in row else len(row) for row in rows]
        by = sorted(range(len(rows)), key=lambda sample: -places[sample])
        images = images[_to_device(torch.tensor(by), images.device)]
        factors = draw.factors[by]
        rows, places = [rows[sample] for sample in by], [places[sample] for sample in by]
        for number in range(max(places)):
            count = sum(place > number for place in places)
            _blend_round(images[:count], factors[:count], [row[number] for row in rows[:count]])
        if HUE in self.colour_ops:
            images = hue(images, factors[:, HUE])
        for number in range(len(self.colour_ops) - 1 - min(places)):
            start = sum(place + 1 + number >= len(self.colour_ops) for place in places)
            kinds = [row[place + 1 + number] for row, place in zip(rows[start:], places[start:], strict=True)]
            _blend_round(images[start:], factors[start:], kinds)
        return images[_to_device(torch.tensor(by).argsort(), images.device)]


def _blend_round(images: Tensor, factors: Tensor, kinds: Sequence[int]) -> None:
    """One blend per sample, in place: factors float64 (B, 4)."""
    chosen = torch.tensor(kinds)
    blend_(images, factors.gather(1, chosen[:, None])[:, 0], chosen)


def blend_(images: Tensor, factor: Tensor, kinds: Tensor) -> Tensor:
    """factor * image + (1 - factor) * target in place, where kinds int64 (B,) names the target of each sample.

    BRIGHTNESS: black. CONTRAST: the mean of the image's grey. SATURATION: the image's grey. Clamped to [0, 1].
    """
    # 1 - factor in float64, as torchvision computes it in Python: the same bits.
    factor = factor.double()
    with_grey, with_mean = kinds == SATURATION, kinds == CONTRAST
    columns = torch.stack([factor, 1 - factor, with_grey.double(), with_mean.double()])
    ratio, rest, use_grey, use_mean = _to_device(columns.float(), images.device)[..., None, None, None]
    # Masks in place of branches per sample: indexing by a mask on the device would wait for it.
    any_grey, any_mean = bool(with_grey.any()), bool(with_mean.any())  # CPU tensors: no synchronisation
    if not any_grey and not any_mean:
        return images.mul_(ratio).clamp_(0, 1)
    grey = _grey(images)
    parts = [use_grey * grey] if any_grey else []
    if any_mean:
        parts.append(use_mean * grey.mean(dim=(1, 2, 3), keepdim=True))
    target = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return images.mul_(ratio).add_(rest * target).clamp_(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """adjust_brightness with a factor (B,) per sample: 0 is black, 1 changes nothing."""
    return blend_(images.clone(), factor, torch.full((len(images),), BRIGHTNESS))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """adjust_contrast with a factor (B,) per sample: 0 is uniform grey, 1 changes nothing."""
    return blend_(images.clone(), factor, torch.full((len(images),), CONTRAST))


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """adjust_saturation with a factor (B,) per sample: 0 is greyscale, 1 changes nothing."""
    return blend_(images.clone(), factor, torch.full((len(images),), SATURATION))


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """adjust_hue with a turn (B,) in [-0.5, 0.5] full circles per sample.

    HSV is converted back to RGB in closed form: channel n is v - v*s * clamp(2 - |k - 2|, 0, 1) with
    k = (n + 6h) mod 6 and n = 5, 3, 1. This takes a quarter of the operations of torchvision's six cases. It is
    continuous in h, so rounding changes no more than the last bits of float32.
    """
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)  # v * s, in HSV
    # Six times the hue: (g - b, b - r, r - g) / chroma + (0, 2, 4), as the largest channel is red, green or blue.
    # Products with masks of 0 and 1, because torch.where takes ten times as long on a CPU.
    is_red = red == value
    is_green = ((green == value) & ~is_red).float()
    is_red = is_red.float()
    is_blue = 1 - is_red - is_green
    slope = is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)
    # A grey pixel has no hue and no chroma: dividing by more than 0 avoids the NaN, and the hue is multiplied by 0.
    sixth = slope.div_(chroma.clamp(min=torch.finfo(chroma.dtype).tiny)) + (2 * is_green + 4 * is_blue)
    sixth += _to_device((turn.double() * 6).float(), images.device)[:, None, None, None]
    # k - 2, brought between -3 and 3.
    k = sixth + _channels((3.0, 1.0, -1.0), 2, images.device)
    k.sub_((k * (1 / 6)).round_(), alpha=6)
    return value - k.abs_().neg_().add_(2).clamp_(0, 1).mul_(chroma)


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """hflip of the samples where mask, bool (B,), is true."""
    if images.device.type == "cpu":
        pairs = zip(images, mask.tolist(), strict=True)
        return torch.stack([image.flip(-1) if flipped else image for image, flipped in pairs])
    return torch.where(_to_device(mask, images.device)[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, top: Tensor, left: Tensor, size: int, padding: int) -> Tensor:
    """Zero padding on all sides, then the window (size, size) at top, left: int64 (B,), in the padded image."""
    device = images.device
    padded = functional.pad(images, [padding] * 4)
    if device.type == "cpu":
        # A slice copies whole rows, the gather below pixel by pixel.
        places = zip(padded, top.tolist(), left.tolist(), strict=True)
        return torch.stack([image[:, y : y + size, x : x + size] for image, y, x in places])
    # One gather for the batch: indices of sample, channel, row and column broadcast to (B, C, size, size).
    corners = _to_device(torch.stack([top, left]), device)[:, :, None, None, None]
    steps = torch.arange(size, device=device)
    samples = torch.arange(len(images), device=device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=device)[:, None, None]
    windows: Tensor = padded[samples, channels, corners[0] + steps[:, None], corners[1] + steps]
    return windows


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(value - mean) / std for each of the C channels of (B, C, ...), a new tensor."""
    centre, spread = (_channels(tuple(values), images.dim() - 2, images.device) for values in (mean, std))
    return (images - centre).div_(spread)


def epoch_order(seed: int, epoch: int, n: int, shuffle: bool) -> Tensor:
    """The order of n samples in an epoch, int64 (n,) on the CPU: permuted by (seed, epoch), or 0 to n - 1."""
    if not shuffle:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(stream_seed("order", seed, epoch)))


def stream_seed(*parts: str | int) -> int:
    """A 63-bit seed hashed from `parts`, so that neighbouring epochs and batches get unrelated streams."""
    # The separator keeps (1, 11) and (11, 1) apart. hashlib, because Python's hash() differs between processes.
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _grey(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W), with the weights and the order of rgb_to_grayscale; one channel is grey already."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    # Summed in torchvision's order, for the same bits.
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy without blocking the host; CUDA copies asynchronously from pinned memory only."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], dimensions: int, device: torch.device) -> Tensor:
    """Per-channel constants, float32 (C, 1, ...) with so many dimensions behind the first.

    Cached, because copying to a device synchronises with it.
    """
    return torch.tensor(values, dtype=torch.float32).reshape(-1, *[1] * dimensions).to(device)
