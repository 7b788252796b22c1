"""Networks by the name that `model.type` gives them.

The login node reads this file, so it imports no torch: a network's own file is imported when the network is built.

To add a network: a file beside this one, an entry in NETWORKS, and its new options, if any, in options.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from src.models.options import Model

if TYPE_CHECKING:
    from torch import nn

# Short labels of options in the names of cells, in their order; the report uses the same.
LABELS = {"type": "net", "num_modules": "M", "branch_channels": "bc"}
# The options that every network reads. Each of the others is read by some networks only.
_COMMON = frozenset({"type", "num_classes", "input_shape"})


@dataclass(frozen=True)
class Network:
    """What the project knows about a network without building it.

    `options`: the keys of the `model` section that it reads, besides the common ones. The others change nothing, so
    they are not part of a run's content key.
    `problems`: what is wrong with a `model` section for images of (height, width), as `key path: what, what to set`.
    `faster_channels_last`: the kinds of device on which it trains faster in torch's memory format channels_last.
    `build`: what `build_model` calls; it imports the network's file.
    """

    options: frozenset[str]
    problems: Callable[[Mapping[str, Any], tuple[int, int]], Iterable[str]]
    build: Callable[[Model], nn.Module]
    faster_channels_last: frozenset[str]


def reads(network: str, option: str) -> bool:
    """Whether `option`, a key of the `model` section, changes anything for `network`."""
    return option in _COMMON or option in NETWORKS[network].options


def content_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a `model` section, in plain values, that its network reads."""
    return {option: value for option, value in model.items() if reads(model["type"], option)}


def build_model(model: Model) -> nn.Module:
    """The network of a validated `model` section, with initial weights from torch's global generator.

    It maps normalised images, float32 (B, 3, H, W), to logits (B, num_classes).
    """
    return NETWORKS[model.type].build(model)


def count_parameters(network: nn.Module) -> int:
    """The number of trainable parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _size_problems(model: Mapping[str, Any], size: tuple[int, int]) -> Iterable[str]:
    """Both networks halve the image after every second module, except after the last."""
    modules = model["num_modules"]
    times = (modules - 1) // 2
    if min(size) < 2**times:
        halve = f"{modules} modules halve the image {times} times"
        yield f"model.num_modules: {halve}, too many for {list(size)}; set fewer"


def _inception(model: Model) -> nn.Module:
    from src.models.inception import InceptionNet

    return InceptionNet(model)


def _residual_cnn(model: Model) -> nn.Module:
    from src.models.residual import ResidualCNN

    return ResidualCNN(model)


_HEAD = ("num_modules", "stem_channels", "hidden_sizes", "activation", "dropout", "batch_norm")

NETWORKS: Mapping[str, Network] = {
    "inception_multibranch": Network(
        # Content keys of existing runs hold `attention` and `rnn`, which are constant.
        options=frozenset({*_HEAD, "branch_channels", "residual", "attention", "rnn"}),
        problems=_size_problems,
        build=_inception,
        faster_channels_last=frozenset({"cpu", "cuda"}),
    ),
    "residual_cnn": Network(
        options=frozenset(_HEAD),
        problems=_size_problems,
        build=_residual_cnn,
        faster_channels_last=frozenset({"cuda"}),
    ),
}
