"""Networks by the name that `model.type` gives them.

The login node reads this file, so it imports no torch: a network's own file is imported when the network is built.

To add a network: a file beside this one, its options in options.py, and an entry in NETWORKS. Those of torchvision and
timm, and of a user's project, are built by src/models/others.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from relay.program.own_code import is_own
from src.models.options import CommonOptions, InceptionOptions, Model, OtherOptions, ResidualOptions, StackOptions

if TYPE_CHECKING:
    from torch import nn

# Short labels of options in the names of cells, in their order; the report uses the same.
LABELS = {"type": "net", "num_modules": "M", "branch_channels": "bc"}


@dataclass(frozen=True)
class Network:
    """What the project knows about a network without building it.

    `options`: the class of the options that it reads. The others in the `model` section change nothing for it, so they
    are not part of a run's content key.
    `module`, `class_name`: the class that `build_model` calls with the `model` section, and where it is.
    `problems`: what is wrong with a `model` section for images of (height, width), as `key path: what, what to set`.
    `package`: the one whose version decides what it computes.
    `faster_channels_last`: the kinds of device on which it trains faster in torch's memory format channels_last.
    `main_options`: those that the report lists for a training and suggests to change.
    `references`: what the report cites for it.
    """

    options: type[CommonOptions]
    module: str
    class_name: str
    # Empty for what is built and tried where runs are planned, see src/training/trial.py.
    problems: Callable[[Model, tuple[int, int]], Iterable[str]] = lambda model, size: ()
    faster_channels_last: frozenset[str] = frozenset()
    main_options: tuple[str, ...] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    package: str | None = None


def network_of(name: str) -> Network | None:
    """What is known of the network that `model.type` names; None if it names none."""
    if is_own(name):
        return _OWN
    family, slash, rest = name.partition("/")
    return _FAMILIES.get(family) if slash and rest else NETWORKS.get(name)


def known(name: str) -> Network:
    """`network_of` for a name that is valid."""
    network = network_of(name)
    assert network is not None
    return network


def is_ours(name: str) -> bool:
    """Whether `model.type` names one of the networks of this project, whose options are keys of `model`."""
    return name in NETWORKS


def reads(network: str, option: str) -> bool:
    """Whether `option`, a key of the `model` section or a key path in it, changes anything for `network`."""
    return option.partition(".")[0] in known(network).options.model_fields


def content_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a `model` section, in plain values, that its network reads."""
    return {option: value for option, value in model.items() if reads(model["type"], option)}


def build_model(model: Model, project: str = ".") -> nn.Module:
    """The network of a validated `model` section, with initial weights from torch's global generator.

    It maps normalised inputs, float32 (B, *shape), to logits (B, classes). `project`: the folder of the user's code.
    Raises ConfigError if a network that is not ours cannot be built.
    """
    network = known(model.type)
    make = getattr(importlib.import_module(network.module), network.class_name)
    built: nn.Module = make(model) if is_ours(model.type) else make(model, project)
    return built


def count_parameters(network: nn.Module) -> int:
    """The number of trainable parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def count_all_parameters(network: nn.Module) -> int:
    """The number of parameters of a network, with those that are not trained."""
    return sum(parameter.numel() for parameter in network.parameters())


def _size_problems(model: StackOptions, size: tuple[int, int]) -> Iterable[str]:
    """Both networks halve the image after every second module, except after the last."""
    times = (model.num_modules - 1) // 2
    if min(size) < 2**times:
        halve = f"{model.num_modules} modules halve the image {times} times"
        yield f"model.num_modules: {halve}, too many for {list(size)}; set fewer"


NETWORKS: Mapping[str, Network] = {
    "inception_multibranch": Network(
        options=InceptionOptions,
        module="src.models.inception",
        class_name="InceptionNet",
        problems=_size_problems,
        faster_channels_last=frozenset({"cpu", "cuda"}),
        main_options=("num_modules", "branch_channels"),
        references={"Inception: Szegedy et al. 2015": "arXiv:1409.4842"},
    ),
    "residual_cnn": Network(
        options=ResidualOptions,
        module="src.models.residual",
        class_name="ResidualCNN",
        problems=_size_problems,
        faster_channels_last=frozenset({"cuda"}),
        main_options=("num_modules",),
    ),
}

_FAMILIES: Mapping[str, Network] = {
    "torchvision": Network(
        options=OtherOptions,
        module="src.models.others",
        class_name="torchvision_network",
        faster_channels_last=frozenset({"cuda"}),
        references={"torchvision: TorchVision maintainers 2016": "github.com/pytorch/vision"},
        package="torchvision",
    ),
    "timm": Network(
        options=OtherOptions,
        module="src.models.others",
        class_name="timm_network",
        faster_channels_last=frozenset({"cuda"}),
        references={"timm: Wightman 2019": "doi:10.5281/zenodo.4414861"},
        package="timm",
    ),
}
# Not channels_last: a network may reshape with `view`, which fails for this format.
_OWN = Network(options=OtherOptions, module="src.models.others", class_name="own_network")
FAMILIES = tuple(_FAMILIES)
