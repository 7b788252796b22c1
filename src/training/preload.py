"""Imports what every run needs, in a process that then forks for each: our own modules, then what libraries import
when they first write something.
"""

from __future__ import annotations

import importlib

from src.models.registry import NETWORKS

_NAMES = (
    *("src.training.trainer", "src.training.lr_range", "src.artifacts"),
    *(f"PIL.{kind}ImagePlugin" for kind in ("Bmp", "Gif", "Jpeg", "Png", "Ppm")),
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.plugins.hparams.summary_v2",
    "tensorboard.summary.writer.record_writer",
    *("torch.nested._internal.nested_tensor", "torch.utils.serialization.config"),
)


def import_all() -> None:
    """Import all of it. Takes seconds."""
    for name in (*(network.module for network in NETWORKS.values()), *_NAMES):
        importlib.import_module(name)
