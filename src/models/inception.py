"""The Inception-like network of the report: modules of three parallel branches, concatenated and normalised.

The names in the state dict are those of the report's program, so that its checkpoints load: `stem.0`, then `features`,
in which the pools between modules are numbered too, then `classifier`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.models.layers import ACTIVATIONS, make_classifier
from src.models.options import InceptionOptions


class InceptionModule(nn.Module):
    """(B, C, H, W) -> (B, sum(branch_channels), H, W).

    Three branches side by side (1x1; 3x3; max-pool 3x3 then 1x1), concatenated on the channels, then BatchNorm.
    After Szegedy et al., Going Deeper with Convolutions, 2015, with the report's choice of branches.
    """

    def __init__(self, channels: int, model: InceptionOptions) -> None:
        super().__init__()
        activation = ACTIVATIONS[model.activation]
        first, second, third = model.branch_channels
        out = first + second + third
        # Without biases, as in the report's checkpoints.
        self.branch1 = nn.Sequential(nn.Conv2d(channels, first, 1, bias=False), activation())
        self.branch2 = nn.Sequential(nn.Conv2d(channels, second, 3, padding=1, bias=False), activation())
        self.branch3 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(channels, third, 1, bias=False), activation()
        )
        self.bn = nn.BatchNorm2d(out) if model.batch_norm else nn.Identity()
        self.shortcut = _shortcut(channels, out) if model.residual else None

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        joined = torch.cat((self.branch1(images), self.branch2(images), self.branch3(images)), dim=1)
        normalised: Tensor = self.bn(joined)
        return normalised if self.shortcut is None else normalised + self.shortcut(images)


def _shortcut(channels: int, out: int) -> nn.Module:
    """The identity if the channels agree, else a 1x1 projection (He et al. 2016, option B)."""
    return nn.Identity() if channels == out else nn.Conv2d(channels, out, 1, bias=False)


class InceptionNet(nn.Module):
    """Images (B, C, H, W), normalised -> logits (B, num_classes)."""

    def __init__(self, model: InceptionOptions) -> None:
        super().__init__()
        activation = ACTIVATIONS[model.activation]
        width = sum(model.branch_channels)
        self.stem = nn.Sequential(
            nn.Conv2d(model.shape[0], model.stem_channels, 3, padding=1, bias=False), activation()
        )
        features: list[nn.Module] = []
        for number in range(1, model.num_modules + 1):
            features.append(InceptionModule(model.stem_channels if number == 1 else width, model))
            # Not after the last module: its output is averaged anyway.
            if number % 2 == 0 and number < model.num_modules:
                features.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        self.dropout = nn.Dropout(model.dropout)
        self.classifier = make_classifier(width, model)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_classes)."""
        # A mean, not AdaptiveAvgPool2d(1): the same value, and its backward pass is deterministic on CUDA.
        pooled = self.features(self.stem(images)).mean(dim=(2, 3))
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits
