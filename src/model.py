"""The Inception-like network of the report: modules of three parallel branches, concatenated and normalised.

Names in the state dict are those of the report's program, so that its checkpoints load: `stem.0`, then `features`, in
which the pools between modules count as members, then `classifier`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from src.schema import Model

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class InceptionModule(nn.Module):
    """(B, C, H, W) -> (B, sum(branch_channels), H, W).

    Three branches side by side (1x1; 3x3; max-pool 3x3 then 1x1), concatenated on the channels, then BatchNorm.
    After Szegedy et al., Going Deeper with Convolutions, 2015, with the report's choice of branches.
    """

    def __init__(self, channels: int, model: Model) -> None:
        super().__init__()
        activation = _ACTIVATIONS[model.activation]
        first, second, third = model.branch_channels
        out = first + second + third
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
    """Identity where the channels agree, else a 1x1 projection (He et al. 2016, option B)."""
    return nn.Identity() if channels == out else nn.Conv2d(channels, out, 1, bias=False)


class InceptionNet(nn.Module):
    """Images (B, 3, H, W), normalised -> logits (B, num_classes)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        activation = _ACTIVATIONS[model.activation]
        width = sum(model.branch_channels)
        self.stem = nn.Sequential(nn.Conv2d(3, model.stem_channels, 3, padding=1, bias=False), activation())
        features: list[nn.Module] = []
        for number in range(1, model.num_modules + 1):
            features.append(InceptionModule(model.stem_channels if number == 1 else width, model))
            if number % 2 == 0 and number < model.num_modules:
                features.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        self.dropout = nn.Dropout(model.dropout)
        self.classifier = _classifier(width, model)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, num_classes)."""
        # A mean, not AdaptiveAvgPool2d(1): the same value, and its backward pass is deterministic on CUDA.
        pooled = self.features(self.stem(images)).mean(dim=(2, 3))
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


def _classifier(width: int, model: Model) -> nn.Module:
    """One Linear layer, or a perceptron with `hidden_sizes` before it."""
    if not model.hidden_sizes:
        return nn.Linear(width, model.num_classes)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((width, *model.hidden_sizes)):
        layers += [nn.Linear(inputs, outputs), _ACTIVATIONS[model.activation](), nn.Dropout(model.dropout)]
    return nn.Sequential(*layers, nn.Linear(model.hidden_sizes[-1], model.num_classes))


def build_model(model: Model) -> InceptionNet:
    """The network that a configuration's `model` section names, with fresh weights from torch's global generator.

    Raises ValueError where the pools would leave no pixel of the input.
    """
    return InceptionNet(model)


def count_parameters(network: nn.Module) -> int:
    """How many trainable numbers a network has."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
