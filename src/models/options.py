"""The `model` section of the configuration: the options of all networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from src.section import Count, Fraction, Section


class Model(Section):
    """The network: `type` chooses it from src/models/registry.py, and the other keys are its options.

    An option that the network does not read changes nothing, and is not part of the content key.
    """

    # Any name here: src/config/validation.py compares it with the registry, which imports this file.
    type: str = "inception_multibranch"
    num_classes: Annotated[int, Field(ge=2)] = 200
    input_shape: tuple[Literal[3], Count, Count] = (3, 64, 64)
    num_modules: Count = 6
    branch_channels: tuple[Count, Count, Count] = (64, 64, 64)
    stem_channels: Count = 64
    hidden_sizes: tuple[Count, ...] | None = None
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    dropout: Fraction = 0.0
    batch_norm: bool = True
    residual: bool = False
    # The report's configuration has these two keys, so they must load; only their null values are allowed.
    attention: Literal[False] = False
    rnn: None = None
