"""Networks that are not ours: those of torchvision and timm by name, and a function or class of the user's project."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.config.sections import as_lists
from relay.errors import ConfigError
from relay.program.environment import missing_package
from relay.program.own_code import is_own, load_own, where_raised
from relay.program.parameters import NETWORK, Parameters
from src.models.options import Model

if TYPE_CHECKING:
    from torch import nn


def torchvision_network(model: Model, project: str) -> nn.Module:
    """A classification network of torchvision, without pretrained weights. Raises ConfigError."""
    from torchvision import models

    name = model.type.partition("/")[2]
    names = models.list_models(module=models)
    if name not in names:
        raise ConfigError(f"model.type: torchvision has no classification network {name!r}{_nearest(name, names)}")
    _refuse(model, ("weights", "num_classes"))
    try:
        network: nn.Module = models.get_model(name, weights=None, num_classes=model.classes, **as_lists(model.options))
    except (TypeError, ValueError) as error:
        raise _unbuilt(model, error) from None
    return network


def timm_network(model: Model, project: str) -> nn.Module:
    """A network of timm, without pretrained weights, for the channels of an input. Raises ConfigError."""
    try:
        timm: Any = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ConfigError(f"model.type: {model.type} needs the package {missing_package(str(error.name))}") from None
    name = model.type.partition("/")[2]
    if not timm.is_model(name):
        raise ConfigError(f"model.type: timm has no network {name!r}{_nearest(name, timm.list_models())}")
    _refuse(model, ("pretrained", "num_classes", "in_chans"))
    try:
        network: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=model.classes, in_chans=model.shape[0], **as_lists(model.options)
        )
    except (TypeError, ValueError) as error:
        raise _unbuilt(model, error) from None
    return network


def own_network(model: Model, project: str) -> nn.Module:
    """What the function or class of the project in the folder `project` returns. Raises ConfigError."""
    make = load_own(model.type, project, "model.type")
    if not callable(make):
        raise ConfigError(f"model.type: {model.type} is no function or class, but {type(make).__name__}")
    options = as_lists(model.options)
    parameters = Parameters(make, NETWORK)
    _, problems = parameters.resolve(options)
    if problems:
        raise ConfigError("\n".join(problems))
    try:
        with contextlib.chdir(Path.cwd()):
            built: nn.Module = parameters.call(make, [model.classes, model.shape], options)
            _materialize(built, model.shape)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"model.type: {model.type} cannot be built: {where_raised(error, project)}") from error
    return built


def _materialize(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Let lazy layers find their sizes, which optimizers and checkpoints need."""
    import torch
    from torch.nn.parameter import is_lazy

    if isinstance(network, torch.nn.Module) and any(map(is_lazy, network.parameters())):
        with torch.no_grad():
            try:
                network.eval()(torch.zeros(2, *shape))
            except (RuntimeError, TypeError):
                # Whole numbers, of an embedding.
                network(torch.zeros(2, *shape, dtype=torch.int64))


def declared_options(model: Model, project: str) -> dict[str, Any]:
    """The options that are given to a network that is not ours and, of one of the project, the defaults of the others.

    Raises ConfigError.
    """
    given: dict[str, Any] = as_lists(model.options)
    if not is_own(model.type):
        return given
    values, problems = Parameters(load_own(model.type, project, "model.type"), NETWORK).resolve(given)
    return given if problems else values


def _refuse(model: Model, fixed: tuple[str, ...]) -> None:
    for name in fixed:
        if name in model.options:
            raise ConfigError(
                f"model.options.{name}: is set by Relay (from model.num_classes and the data, without pretrained "
                "weights); remove it, or build the network in a function of your own"
            )


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return (
        f"; did you mean {', '.join(close)}?" if close else f"; it has {', '.join(names[:3])} and {len(names) - 3} more"
    )


def _unbuilt(model: Model, error: Any) -> ConfigError:
    given = ", ".join(model.options) or "none"
    text = " ".join(str(error).split())[:300]
    return ConfigError(f"model.options: {model.type} cannot be built with these options ({given}): {text}")
