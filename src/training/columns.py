"""The columns of the table of results that a run of training or LR sweep fills, as its result.json holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from src.config.schema import Metrics


def training_columns(metrics: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    """Of a training: the metrics of its best epoch, then what else is known about it."""
    best, train = result.get("best") or {}, result.get("train") or {}
    return {
        **{f"val/{name}": best.get(name) for name in metrics.columns},
        "best_epoch": best.get("epoch"),
        "train/loss": train.get("loss_epoch", train.get("loss")),
        "train/accuracy": train.get("accuracy"),
        "epochs": result.get("epochs"),
        "steps": result.get("steps"),
        "images_per_s": result.get("images_per_s"),
        "train_s": result.get("train_seconds"),
    }


def lr_sweep_columns(result: Mapping[str, Any]) -> dict[str, Any]:
    """Of an LR sweep: the suggested rates."""
    suggestion = result.get("suggestion") or {}
    suggested = {name: suggestion.get(name) for name in ("steepest", "valley")}
    return {**suggested, "steps": result.get("steps")}
