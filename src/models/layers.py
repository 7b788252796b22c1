"""Building blocks that the networks share."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from src.models.options import StackOptions

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


def make_classifier(width: int, model: StackOptions) -> nn.Module:
    """(B, width) -> logits (B, num_classes): one Linear layer, or a perceptron with `hidden_sizes` before it."""
    if not model.hidden_sizes:
        return nn.Linear(width, model.classes)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((width, *model.hidden_sizes)):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[model.activation](), nn.Dropout(model.dropout)]
    return nn.Sequential(*layers, nn.Linear(model.hidden_sizes[-1], model.classes))
