"""A network as facts: its layers in the order in which they are executed, and what its options change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from src.models.options import Model
from src.models.registry import build_model, count_parameters, reads


def layer_table(network: nn.Module, input_shape: Iterable[int]) -> list[dict[str, Any]]:
    """The layers of `network` in the order in which they are executed, measured on one image of `input_shape`.

    Each has `name`, `layer` (its type and settings), `output` (its shape without the batch) and `parameters` (its own
    trainable ones). A block of this project, such as an Inception module, follows its layers as one row, with its
    output. A layer that is executed twice has two rows. Leaves the network in evaluation mode.
    """
    rows: list[dict[str, Any]] = []

    def record(name: str, module: nn.Module, output: Tensor) -> None:
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        rows.append(
            {
                "name": name,
                "layer": _described(module),
                "output": list(output.shape[1:]),
                "parameters": sum(p.numel() for p in own),
            }
        )

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: record(name, module, output))
        for name, module in network.named_modules()
        if name and (_is_leaf(module) or type(module).__module__.startswith("src."))
    ]
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, *input_shape, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def _described(module: nn.Module) -> str:
    """The type with what distinguishes it, without torch's defaults: `Conv2d 3 -> 64, 3x3, padding 1`."""
    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        moves = "".join(
            f", {what} {size}"
            for what in ("stride", "padding")
            if (size := _one(getattr(module, what))) != _DEFAULTS[what]
        )
        bias = "" if module.bias is None else ", bias"
        return f"{name} {module.in_channels} -> {module.out_channels}, {_edges(module.kernel_size)}{moves}{bias}"
    if isinstance(module, nn.MaxPool2d):
        return f"{name} {_edges(module.kernel_size)}, stride {_one(module.stride)}, padding {_one(module.padding)}"
    if isinstance(module, nn.BatchNorm2d):
        return f"{name} {module.num_features}"
    if isinstance(module, nn.Linear):
        return f"{name} {module.in_features} -> {module.out_features}"
    if isinstance(module, nn.Dropout):
        return f"{name} {module.p:g}"
    return name


# Of a convolution.
_DEFAULTS = {"stride": 1, "padding": 0}


def _one(size: Any) -> Any:
    """A size that is equal in both directions as one number."""
    return size[0] if isinstance(size, tuple) and len(set(size)) == 1 else size


def _edges(size: Any) -> str:
    height, width = size if isinstance(size, tuple) else (size, size)
    return f"{height}x{width}"


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def option_facts(model: Model, values: dict[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """The role of each option in `values`, with the parameter counts of the network for each of its values there.

    Each has `option`, `value` (the configured one), `role` and `parameters`: a list of {`value`, `parameters`}. Options
    that the network does not read are left out.
    """
    return [
        {
            "option": option,
            "value": _plain(getattr(model, option)),
            "role": Model.model_fields[option].description or "",
            "parameters": [
                {"value": _plain(value), "parameters": _parameters(model, option, value)} for value in options
            ],
        }
        for option, options in values.items()
        if reads(model.type, option)
    ]


def _parameters(model: Model, option: str, value: Any) -> int:
    # On the meta device a network has shapes and no memory.
    with torch.device("meta"):
        return count_parameters(build_model(model.model_copy(update={option: value})))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
