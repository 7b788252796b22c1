"""Temporary."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from src.config.schema import Metrics


def _training_columns(metrics: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
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


def _lr_sweep_columns(_: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    suggestion = result.get("suggestion") or {}
    suggested = {name: suggestion.get(name) for name in ("steepest", "valley")}
    return {**suggested, "steps": result.get("steps")}


def _evaluation_columns(metrics: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result.get(name) for name in ("split", "n", *metrics.columns, "checkpoint")}


def kind_of(name: str, source: object = "a sweep") -> Any:
    return SimpleNamespace(
        columns={"lr_sweep": _lr_sweep_columns, "evaluate": _evaluation_columns}.get(name, _training_columns)
    )
