"""What makes runs cost the same: their shape, and how much of that shape's work each of them is."""

from __future__ import annotations

import hashlib

from src.config import Config


def shape_of(kind: str, config: Config) -> str:
    """12 hex digits, equal where a unit of work costs the same: the same images, network, batch and kind of run."""
    train = config.train
    data = config.dataset
    images = (data.name, data.classes, data.train_per_class, data.split, config.preprocess)
    if kind == "evaluate":
        parts: tuple[object, ...] = (images, config.model, config.evaluation.split)
    else:
        epochs = train.epochs if train.max_steps is not None else None
        loop = (train.batch_size, train.optimizer.name, train.max_steps, epochs, train.overfit_small)
        parts = (images, config.augment, config.model, loop)
    return hashlib.sha256(repr(("train" if kind == "grid" else kind, *parts)).encode()).hexdigest()[:12]


def units_of(kind: str, config: Config) -> float:
    """Units of work of a run: epochs of a training, steps of a learning-rate sweep, 1 for what comes in one piece."""
    if kind == "lr_sweep":
        return float(config.lr_finder.num_steps)
    if kind == "evaluate" or config.train.max_steps is not None:
        return 1.0
    return float(config.train.epochs)
