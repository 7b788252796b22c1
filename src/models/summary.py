"""A network as facts: its layers in the order in which they are executed, and what its options change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from src.models.options import Model
from src.models.others import declared_options
from src.models.registry import build_model, count_parameters, reads


def layer_table(
    network: nn.Module, input_shape: Iterable[int], dtype: torch.dtype = torch.float32
) -> list[dict[str, Any]]:
    """The layers of `network` in the order in which they are executed, measured on one input of `input_shape`.

    Each has `name`, `layer` (its type and settings), `output` (its shape without the batch, None if unknown),
    `parameters` (its own trainable ones) and `frozen` (its other ones). Every parameter is in one row: a layer that is
    executed several times has one, and one whose weights are read without calling it comes last. A block of this
    project, such as an Inception module, follows its layers as one row. Leaves the network in evaluation mode.
    """
    rows: dict[str, dict[str, Any]] = {}
    times: Counter[str] = Counter()
    counted = set[int]()

    def add(name: str, module: nn.Module, output: list[int] | None) -> None:
        own = {id(p): p for p in module.parameters(recurse=False)}
        sizes = [(p.requires_grad, p.numel()) for key, p in own.items() if key not in counted]
        counted.update(own)
        rows[name] = {
            "name": name,
            "layer": _described(module),
            "output": output,
            "parameters": sum(size for trained, size in sizes if trained),
            "frozen": sum(size for trained, size in sizes if not trained),
        }

    def record(name: str, module: nn.Module, output: Any) -> None:
        times[name] += 1
        if name not in rows:
            add(name, module, _shape_of(module, output))

    modules = {name: module for name, module in network.named_modules() if name}
    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: record(name, module, output))
        for name, module in modules.items()
        if _is_leaf(module) or _has_own(module) or type(module).__module__.startswith("src.")
    ]
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, *input_shape, device=device, dtype=dtype))
    finally:
        for hook in hooks:
            hook.remove()
    for name, module in {**modules, "": network}.items():
        if name not in rows and any(id(p) not in counted for p in module.parameters(recurse=False)):
            add(name, module, None)
    for name, count in times.items():
        if count > 1:
            rows[name]["layer"] += f", used {count} times"
    return list(rows.values())


def _shape_of(module: nn.Module, output: Any) -> list[int] | None:
    """The shape of the output without the batch; of a recurrent layer, that of the first of its outputs."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        return None
    shape = list(output.shape)
    # (length, batch, features), unless it says otherwise.
    del shape[1 if isinstance(module, nn.RNNBase) and not module.batch_first and len(shape) > 2 else 0]
    return shape


def _has_own(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _described(module: nn.Module) -> str:
    """The type with what distinguishes it, without torch's defaults: `Conv2d 3 -> 64, 3x3, padding 1`."""
    name = type(module).__name__
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        moves = "".join(
            f", {what} {size}"
            for what in ("stride", "padding")
            if (size := _one(getattr(module, what))) != _DEFAULTS[what]
        )
        bias = "" if module.bias is None else ", bias"
        return f"{name} {module.in_channels} -> {module.out_channels}, {_edges(module.kernel_size)}{moves}{bias}"
    if isinstance(module, nn.MaxPool2d):
        return f"{name} {_edges(module.kernel_size)}, stride {_one(module.stride)}, padding {_one(module.padding)}"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return f"{name} {module.num_features}"
    if isinstance(module, nn.Linear):
        return f"{name} {module.in_features} -> {module.out_features}"
    if isinstance(module, nn.RNNBase):
        both = ", both directions" if module.bidirectional else ""
        layers = "" if module.num_layers == 1 else f", {module.num_layers} layers"
        return f"{name} {module.input_size} -> {module.hidden_size}{layers}{both}"
    if isinstance(module, nn.Embedding):
        return f"{name} {module.num_embeddings} -> {module.embedding_dim}"
    if isinstance(module, nn.Dropout):
        return f"{name} {module.p:g}"
    return name


# Of a convolution.
_DEFAULTS = {"stride": 1, "padding": 0}


def _one(size: Any) -> Any:
    """A size that is equal in both directions as one number."""
    return size[0] if isinstance(size, tuple) and len(set(size)) == 1 else size


def _edges(size: Any) -> str:
    return "x".join(map(str, size if isinstance(size, tuple) else (size, size)))


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def option_facts(model: Model, project: str, values: dict[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """The role of each option in `values`, with the parameter counts of the network for each of its values there.

    Each has `option`, `value` (the configured one), `role` and `parameters`: a list of {`value`, `parameters`}. Options
    that the network does not read are left out.
    """
    declared = declared_options(model, project)
    return [
        {
            "option": option,
            "value": _plain(_value(model, declared, option)),
            "role": field.description or "" if (field := Model.model_fields.get(option)) else "",
            "parameters": [
                {"value": _plain(value), "parameters": _parameters(model, project, option, value)} for value in options
            ],
        }
        for option, options in values.items()
        if reads(model.type, option)
    ]


def _value(model: Model, declared: Mapping[str, Any], option: str) -> Any:
    """The value of an option; of `options.width`, one that the network declares itself."""
    name = option.removeprefix("options.")
    return getattr(model, option) if name == option else declared.get(name)


def _parameters(model: Model, project: str, option: str, value: Any) -> int:
    name = option.removeprefix("options.")
    update = {option: value} if name == option else {"options": {**model.options, name: value}}
    # On the meta device a network has shapes and no memory.
    with torch.device("meta"):
        return count_parameters(build_model(model.model_copy(update=update), project))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
