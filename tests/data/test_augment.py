"""The batched operations equal torchvision's, image by image; draws depend on (seed, epoch, batch) alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from src.config.schema import Augment, ColorJitter, RandomCrop
from src.data import augment as module
from src.data.augment import Augmenter, epoch_order, normalize, stream_seed

FULL = Augment(
    random_flip=True,
    random_crop=RandomCrop(size=32, padding=4),
    color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
)


@pytest.fixture(scope="module")
def reference() -> Any:
    """torchvision's functions. Its import takes 2 s, and every test process collects this file."""
    from torchvision.transforms import functional

    return functional


def batch(count: int = 24, size: tuple[int, int] = (32, 32)) -> Tensor:
    """Images of multiples of 1/255, with a black, a white, a grey and two saturated ones."""
    images = torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(1)).float() / 255
    images[0], images[1] = 0, 1
    images[2] = images[2, :1]
    images[3, 1:] = 0
    images[4, 0] = images[4, 2]
    return images


def spread(count: int, low: float, high: float) -> Tensor:
    """Factors over the whole range, both ends included."""
    return torch.linspace(low, high, count, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "low", "high", "tolerance"),
    [
        ("brightness", 0.0, 2.5, 0.0),
        ("saturation", 0.0, 2.5, 0.0),
        ("contrast", 0.0, 2.5, 5e-7),  # the mean is summed in another order
        ("hue", -0.5, 0.5, 2e-6),
    ],
)
def test_colour_operation_equals_torchvision(reference, name, low, high, tolerance):
    theirs = getattr(reference, f"adjust_{name}")
    images = batch()
    factors = spread(len(images), low, high)
    found = getattr(module, name)(images, factors)
    for image, factor, result in zip(images, factors.tolist(), found, strict=True):
        torch.testing.assert_close(result, theirs(image, factor), rtol=0, atol=tolerance)


@pytest.mark.parametrize("turn", [-0.5, -1 / 3, -1 / 6, 0.0, 1 / 6, 0.02, 0.5])
def test_hue_equals_torchvision_where_the_six_cases_meet(reference, turn):
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.25, 0.5, 1.0])] * 3).T.reshape(1, 3, 8, 8)
    found = module.hue(corners, torch.tensor([turn]).double())[0]
    torch.testing.assert_close(found, reference.adjust_hue(corners[0], turn), rtol=0, atol=2e-6)


def test_flip_and_crop_equal_torchvision_bit_for_bit(reference):
    images = batch(9, (20, 28))
    mask = torch.arange(9) % 2 == 0
    flipped = module.flip(images, mask)
    for image, on, result in zip(images, mask.tolist(), flipped, strict=True):
        assert torch.equal(result, reference.hflip(image) if on else image)
    top, left = torch.arange(9), torch.tensor([0, 16, 3, 1, 2, 5, 16, 0, 7])
    cropped = module.crop(images, top, left, 20, 4)
    for image, y, x, result in zip(images, top.tolist(), left.tolist(), cropped, strict=True):
        assert torch.equal(result, reference.crop(reference.pad(image, [4]), y, x, 20, 20))


def test_normalize_equals_torchvision_bit_for_bit(reference):
    images, mean, std = batch(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert torch.equal(normalize(images, mean, std), reference.normalize(images, list(mean), list(std)))


def one_by_one(reference: Any, augmenter: Augmenter, images: Tensor, draw: module.Draw) -> Tensor:
    """What torchvision's RandomHorizontalFlip, RandomCrop and ColorJitter do with these parameters."""
    operations = [
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    ]
    results = []
    for i, image in enumerate(images):
        if augmenter.flip and draw.flip[i]:
            image = reference.hflip(image)
        if augmenter.crop:
            padded = reference.pad(image, [augmenter.crop.padding])
            edge = augmenter.crop.size
            image = reference.crop(padded, int(draw.top[i]), int(draw.left[i]), edge, edge)
        for op in draw.order[i].tolist():
            if op in augmenter.colour_ops:
                image = operations[op](image, float(draw.factors[i, op]))
        results.append(image)
    return torch.stack(results)


@pytest.mark.parametrize(
    "config",
    [
        FULL,
        Augment(),
        Augment(random_flip=True),
        Augment(color_jitter=ColorJitter(hue=0.2)),
        Augment(color_jitter=ColorJitter(contrast=0.5, saturation=1.5)),
        Augment(color_jitter=ColorJitter(brightness=0.5, hue=0.5)),
    ],
)
def test_whole_pipeline_equals_torchvision_in_the_drawn_order(reference, config):
    images, augmenter = batch(96), Augmenter(config, (32, 32))
    before = images.clone()
    draw = augmenter.draw(len(images), seed=1, epoch=2, batch=3)
    found = augmenter(images, seed=1, epoch=2, batch=3)
    torch.testing.assert_close(found, one_by_one(reference, augmenter, images, draw), rtol=0, atol=5e-6)
    assert torch.equal(images, before), "the input is not to be changed"


def test_an_operation_that_is_off_is_not_computed(monkeypatch):
    def refuse(*arguments: object) -> Tensor:
        raise AssertionError("computed although it is off")

    for name in ("blend_", "hue", "flip", "crop"):
        monkeypatch.setattr(module, name, refuse)
    images = batch()
    assert Augmenter(Augment(color_jitter=ColorJitter()), (32, 32))(images, seed=0, epoch=0, batch=0) is images
    with pytest.raises(AssertionError):
        Augmenter(Augment(color_jitter=ColorJitter(hue=0.1)), (32, 32))(images, seed=0, epoch=0, batch=0)


GREY = Augment(
    random_flip=True,
    random_crop=RandomCrop(size=32, padding=4),
    color_jitter=ColorJitter(brightness=0.4, contrast=0.9),
)
PLACES = Augment(random_flip=True, random_crop=RandomCrop(size=32, padding=4))


@pytest.mark.parametrize(("channels", "config"), [(1, GREY), (1, PLACES), (4, PLACES), (2, PLACES)])
def test_other_numbers_of_channels_equal_torchvision(reference, channels, config):
    images, augmenter = torch.cat([batch(96), batch(96)[:, :1].flip(0)], 1)[:, -channels:], Augmenter(config, (32, 32))
    draw = augmenter.draw(len(images), seed=1, epoch=2, batch=3)
    found = augmenter(images, seed=1, epoch=2, batch=3)
    assert found.shape == (96, channels, 32, 32)
    torch.testing.assert_close(found, one_by_one(reference, augmenter, images, draw), rtol=0, atol=5e-7)


def test_draw_depends_on_seed_epoch_and_batch_alone():
    augmenter, images = Augmenter(FULL, (32, 32)), batch()
    first = augmenter(images, seed=1, epoch=2, batch=3)
    torch.manual_seed(99)
    assert torch.equal(first, Augmenter(FULL, (32, 32))(images, seed=1, epoch=2, batch=3))
    state = torch.get_rng_state()
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0), (1, 3, 2), (2, 1, 3)):
        seed, epoch, number = other
        assert not torch.equal(first, augmenter(images, seed=seed, epoch=epoch, batch=number)), other
    assert torch.equal(state, torch.get_rng_state()), "the global generator is not to be touched"


def test_switching_one_operation_off_leaves_the_draws_of_the_others():
    full = Augmenter(FULL, (32, 32)).draw(64, seed=1, epoch=0, batch=0)
    flip_only = Augmenter(Augment(random_flip=True), (32, 32)).draw(64, seed=1, epoch=0, batch=0)
    assert torch.equal(full.flip, flip_only.flip)
    assert torch.equal(full.order, flip_only.order)


def test_draws_cover_their_ranges_evenly():
    draw = Augmenter(FULL, (32, 32)).draw(20_000, seed=0, epoch=0, batch=0)
    assert abs(draw.flip.float().mean() - 0.5) < 0.02
    for places in (draw.top, draw.left):
        counts = torch.bincount(places, minlength=9)
        assert len(counts) == 9
        assert counts.min() > 0.85 * 20_000 / 9
    orders = torch.unique(draw.order, dim=0, return_counts=True)[1]
    assert len(orders) == 24
    assert orders.min() > 0.8 * 20_000 / 24
    for column, (low, high) in zip(draw.factors.T, [(0.6, 1.4)] * 3 + [(-0.1, 0.1)], strict=True):
        assert column.min() >= low
        assert column.max() <= high
        width = high - low
        assert abs(column.mean() - (low + high) / 2) < 0.01 * width
        assert abs(column.std() - width / 12**0.5) < 0.01 * width


def test_factors_never_go_below_zero():
    jitter = Augment(color_jitter=ColorJitter(brightness=3.0))
    factors = Augmenter(jitter, (32, 32)).draw(5000, seed=0, epoch=0, batch=0).factors[:, 0]
    assert 0 <= factors.min() < 0.01
    assert 3.99 < factors.max() <= 4


def test_crop_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Augmenter(Augment(random_crop=RandomCrop(size=41, padding=4)), (32, 32)).draw(1, seed=0, epoch=0, batch=0)


def test_epoch_order_is_a_permutation_of_seed_and_epoch():
    order = epoch_order(1, 2, 1000, True)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, epoch_order(1, 2, 1000, True))
    assert not torch.equal(order, epoch_order(1, 3, 1000, True))
    assert not torch.equal(order, epoch_order(2, 2, 1000, True))
    assert torch.equal(epoch_order(1, 2, 1000, False), torch.arange(1000))


def test_stream_seeds_do_not_run_into_each_other():
    seeds = {stream_seed("augment", seed, epoch, n) for seed in range(12) for epoch in range(12) for n in range(120)}
    assert len(seeds) == 12 * 12 * 120
    assert stream_seed("a", 1, 11) != stream_seed("a", 11, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_agrees_with_cpu_and_never_waits():
    images, augmenter = batch(32), Augmenter(FULL, (32, 32))
    on_cpu = augmenter(images, seed=1, epoch=2, batch=3)
    on_gpu = images.cuda()
    augmenter(on_gpu, seed=0, epoch=0, batch=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = augmenter(on_gpu, seed=1, epoch=2, batch=3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), on_cpu, rtol=0, atol=5e-6)
