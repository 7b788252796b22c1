"""How a run computes: precision, memory format, and whether its network is compiled.

The choice is made when a run starts and is part of its exact state: a resumed run computes as it began, whatever would
be chosen now.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from relay.errors import ConfigError
from relay.log import log
from src.config.schema import Config
from src.models.registry import known

Forward = Callable[[Tensor], Tensor]
# What `auto` is on each kind of device: the fastest one whose accuracy is known to be that of a conventional program.
# docs/performance.md has the measurements.
_AUTO = {"cuda": "tf32", "cpu": "fp32", "mps": "fp32"}


@dataclass(frozen=True)
class Numerics:
    """`precision`: `fp32`, `tf32` (convolutions and matrix products round their inputs to 10 bits; only on a GPU) or
    `bf16` (autocast: activations have 8 bits; weights, sums, BatchNorm's statistics and the loss stay in fp32).
    """

    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False

    @classmethod
    def chosen(cls, config: Config, device: torch.device) -> Numerics:
        """What the configuration asks for, or what was measured to be the fastest on this kind of device.

        Raises ConfigError if the device cannot compute so.
        """
        asked = config.train.precision
        if asked == "tf32" and device.type != "cuda":
            raise ConfigError(
                f"train.precision: tf32 needs an NVIDIA GPU, and the device is {device}; set auto or fp32"
            )
        return cls(
            _AUTO[device.type] if asked == "auto" else asked,
            device.type in known(config.model.type).faster_channels_last,
            config.train.compile and _can_compile(),
        )

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Numerics:
        """Those of a checkpoint. Raises TypeError or ValueError if the entry is not one that `to_state` returned."""
        numerics = cls(**saved)
        if numerics.precision not in ("fp32", "tf32", "bf16"):
            raise ValueError(f"the state was computed with an unknown precision, {numerics.precision!r}")
        if numerics.compiled and not _can_compile():
            return cls(numerics.precision, numerics.channels_last)
        return numerics

    def to_state(self) -> dict[str, Any]:
        """The entry of a checkpoint."""
        return asdict(self)

    def prepare(self, network: nn.Module) -> Forward:
        """Convert the network's weights in place, and return what maps images (B, C, H, W) to logits, float32."""
        torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        network.to(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        compiled: Forward = network
        if self.compiled:
            # reduce-overhead is CUDA graphs: with small batches, starting the kernels takes longer than running them.
            on_gpu = next(network.parameters()).is_cuda
            compiled = torch.compile(network, dynamic=False, mode="reduce-overhead" if on_gpu else None)

        def forward(images: Tensor) -> Tensor:
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits: Tensor = compiled(images)
            return logits.float()

        return forward


def _can_compile() -> bool:
    """Whether there is a C compiler, which torch.compile needs on every device. Logs a line if there is none."""
    found = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if not found:
        log.warning("train.compile: there is no C compiler on this machine (cc, gcc or $CC), so nothing is compiled")
    return bool(found)
