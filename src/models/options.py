"""The `model` section of the configuration: the options of all networks, a class for each network.

A network's code takes its own class, so that mypy finds an option that it reads without declaring it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from relay.config.sections import Count, Fraction, Section


class CommonOptions(Section):
    """The options that every network reads."""

    # Any name here: src/config/validation.py compares it with the registry, which imports this file.
    type: str = "inception_multibranch"
    """The network: one of Relay's, torchvision/NAME, timm/NAME, or module:function of the project."""
    num_classes: Annotated[int, Field(ge=2)] | Literal["auto"] = "auto"
    """The number of classes. `auto`: that of the data."""
    input_shape: Annotated[tuple[Count, ...], Field(min_length=1)] | Literal["auto"] = "auto"
    """The shape of an input: (channels, height, width) of an image. `auto`: that of the data."""

    @property
    def classes(self) -> int:
        """The number of classes, once `auto` is resolved."""
        assert isinstance(self.num_classes, int)
        return self.num_classes

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input without the batch, (channels, height, width) of images, once `auto` is resolved."""
        assert isinstance(self.input_shape, tuple)
        return self.input_shape


class StackOptions(CommonOptions):
    """Of networks that are a stem, a stack of modules and a classifier. The descriptions are shown by src.checks."""

    num_modules: Count = Field(
        6,
        description="the depth: the number of modules one after the other; the image is halved after every second one",
    )
    stem_channels: Count = Field(64, description="the channels after the first convolution")
    hidden_sizes: tuple[Count, ...] | None = Field(None, description="the hidden layers of the classifier")
    activation: Literal["relu", "gelu", "tanh"] = Field("relu", description="the function after each convolution")
    dropout: Fraction = Field(
        0.0, description="the share of features that are set to 0 in training, before the classifier"
    )
    batch_norm: bool = Field(
        True, description="whether every module normalises its output by the statistics of the batch"
    )


class InceptionOptions(StackOptions):
    """Of src/models/inception.py."""

    branch_channels: tuple[Count, Count, Count] = Field(
        (64, 64, 64),
        description="how the channels of a module are shared out between its branches: 1x1, 3x3, pool then 1x1",
    )
    residual: bool = Field(False, description="whether every module adds its input to its output")
    # The report's configuration has these two keys, so they must load; only their null values are allowed.
    attention: Literal[False] = False
    """Always false."""
    rnn: None = None
    """Always null."""


class ResidualOptions(StackOptions):
    """Of src/models/residual.py."""


class OtherOptions(CommonOptions):
    """Of networks that are not ours: the options that the network itself declares."""

    options: dict[str, Any] = Field(default_factory=dict, description="what the network is built with")


class Model(InceptionOptions, ResidualOptions, OtherOptions):
    """The network: `type` chooses it from src/models/registry.py, and the other keys are the options of all networks.

    They are in one section, so that one file and one grid can have several networks. An option that the network does
    not read changes nothing, and is not part of the content key. Networks that are not ours have theirs in `options`.
    """
