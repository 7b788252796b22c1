"""A small residual network of basic blocks, for images of 32 to 64 pixels.

He et al., Deep Residual Learning for Image Recognition, 2016: each block has two 3x3
convolutions and a shortcut, and a block that halves the image doubles the channels. The stem is the paper's for
CIFAR-10: a 3x3 convolution without a pool. With 8 modules and 64 stem channels this is ResNet-18 with that stem.
"""

from __future__ import annotations

from torch import Tensor, nn

from src.models.layers import ACTIVATIONS, make_classifier
from src.models.options import ResidualOptions


class BasicBlock(nn.Module):
    """(B, channels, H, W) -> (B, out, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, channels: int, out: int, stride: int, model: ResidualOptions) -> None:
        super().__init__()
        self.first = _conv(channels, out, 3, stride, model)
        self.second = _conv(out, out, 3, 1, model)
        # A projection if the shape changes (option B of the paper).
        self.shortcut = nn.Identity() if channels == out and stride == 1 else _conv(channels, out, 1, stride, model)
        self.activation = ACTIVATIONS[model.activation]()

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out, H', W')."""
        residual = self.second(self.activation(self.first(images)))
        joined: Tensor = self.activation(residual + self.shortcut(images))
        return joined


class ResidualCNN(nn.Module):
    """`num_modules` basic blocks, two for each image size: images (B, C, H, W), normalised -> logits (B, num_classes).

    `stem_channels` is the width of the stem and of the first two blocks.
    """

    def __init__(self, model: ResidualOptions) -> None:
        super().__init__()
        width = model.stem_channels
        self.stem = nn.Sequential(_conv(model.shape[0], width, 3, 1, model), ACTIVATIONS[model.activation]())
        blocks: list[nn.Module] = []
        for number in range(model.num_modules):
            halve = number > 0 and number % 2 == 0
            out = 2 * width if halve else width
            blocks.append(BasicBlock(width, out, 2 if halve else 1, model))
            width = out
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(model.dropout)
        self.classifier = make_classifier(width, model)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_classes)."""
        # A mean, not AdaptiveAvgPool2d(1): the same value, and its backward pass is deterministic on CUDA.
        pooled = self.blocks(self.stem(images)).mean(dim=(2, 3))
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


def _conv(channels: int, out: int, kernel: int, stride: int, model: ResidualOptions) -> nn.Sequential:
    """A convolution that divides the size by `stride`, then BatchNorm; without BatchNorm it has a bias."""
    # BatchNorm subtracts the mean, so a bias before it has no effect (Ioffe & Szegedy 2015, section 3.2).
    conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=not model.batch_norm)
    return nn.Sequential(conv, nn.BatchNorm2d(out)) if model.batch_norm else nn.Sequential(conv)
