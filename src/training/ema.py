"""The exponential moving average of a network's weights, which is evaluated in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """average = d * average + (1 - d) * weights after every step, also of BatchNorm's statistics.

    d is min(decay, (1 + step) / (10 + step)), so that the first, random weights are soon forgotten; this is the rule of
    tf.train.ExponentialMovingAverage. torch's AveragedModel is not used: it reads a counter from the device each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._values = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    def update(self, step: int) -> None:
        """Count the weights after step `step` (0-based)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        averaged, current = [], []
        for name, tensor in self._network.state_dict().items():
            if tensor.is_floating_point():
                averaged.append(self._values[name])
                current.append(tensor)
            else:
                self._values[name].copy_(tensor)
        # torch's function has no type hints.
        update = cast(Callable[..., None], get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        update(averaged, current, step)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block, the network has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._network.state_dict().items():
            own = tensor.clone()
            tensor.copy_(self._values[name])
            self._values[name].copy_(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the names of the network's state dict."""
        return self._values

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned. Raises ValueError if it is not of this network."""
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in self._values.items()}
        if {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()} != shapes:
            raise ValueError("the averaged weights are not those of this network")
        for name, tensor in state.items():
            self._values[name].copy_(tensor)
