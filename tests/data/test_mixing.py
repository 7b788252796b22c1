from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from src.config.train_section import Train
from src.data.mixing import Mix, draw_mix

SIZE = (16, 20)
IMAGES = torch.rand(5, 3, *SIZE, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 3, 1, 2, 3])
LOGITS = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def drawn(train: Train, count: int) -> list[Mix]:
    return [mix for batch in range(count) if (mix := draw_mix(train, SIZE, epoch=0, batch=batch))]


def test_mixup_is_the_weighted_mean_of_each_image_and_the_one_before_it() -> None:
    mixed = Mix(0.7).images(IMAGES)
    for image in range(5):
        torch.testing.assert_close(mixed[image], 0.7 * IMAGES[image] + 0.3 * IMAGES[image - 1])


def test_cutmix_replaces_a_box_by_that_of_the_image_before() -> None:
    before = IMAGES.clone()
    mixed = Mix(0.5, (2, 8, 3, 19)).images(IMAGES)
    for image in range(5):
        expected = IMAGES[image].clone()
        expected[:, 2:8, 3:19] = IMAGES[image - 1][:, 2:8, 3:19]
        assert torch.equal(mixed[image], expected)
    assert torch.equal(IMAGES, before)


def test_the_loss_is_the_cross_entropy_against_the_mixed_labels() -> None:
    def loss_of(labels: Tensor) -> Tensor:
        return functional.cross_entropy(LOGITS, labels)

    one_hot = functional.one_hot(LABELS, 4).float()
    target = 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)
    torch.testing.assert_close(Mix(0.7).loss(loss_of, LABELS), functional.cross_entropy(LOGITS, target))


def test_the_share_of_cutmix_is_that_of_the_pixels_that_stay() -> None:
    ones_and_zeros = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 3, *SIZE)
    mixes = drawn(Train(cutmix=1.0), 200)
    for mix in mixes:
        assert float(mix.images(ones_and_zeros)[1].mean()) == pytest.approx(mix.share)
    # Beta(1, 1) is uniform; the border and whole pixels leave more than half of the image.
    assert 0.6 < sum(mix.share for mix in mixes) / len(mixes) < 0.8


def test_the_share_of_mixup_has_the_asked_distribution() -> None:
    shares = torch.tensor([mix.share for mix in drawn(Train(mixup=0.2), 2000)])
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * 1.4), rel=0.06)


def test_with_both_each_batch_has_one_of_them() -> None:
    counts = Counter(mix.box is None for mix in drawn(Train(mixup=0.2, cutmix=1.0), 400))
    assert counts[True] + counts[False] == 400
    assert 150 < counts[True] < 250


def test_a_batch_is_mixed_alike_whenever_it_is_reached_and_unlike_others() -> None:
    train = Train(mixup=0.4)
    assert draw_mix(train, SIZE, epoch=3, batch=7) == draw_mix(train, SIZE, epoch=3, batch=7)
    others = [
        draw_mix(train, SIZE, epoch=7, batch=3),
        draw_mix(train, SIZE, epoch=3, batch=8),
        draw_mix(Train(seed=1, mixup=0.4), SIZE, epoch=3, batch=7),
    ]
    assert draw_mix(train, SIZE, epoch=3, batch=7) not in others


def test_nothing_is_mixed_unless_asked_for_and_never_in_an_overfit_test() -> None:
    assert draw_mix(Train(), SIZE, epoch=0, batch=0) is None
    assert draw_mix(Train(mixup=1.0, overfit_small=True), SIZE, epoch=0, batch=0) is None
