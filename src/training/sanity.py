"""Checks of the data and the model before any training, with the report's numbers: D2 to D11, M0 to M2.

`measure` answers all of them with plain values; src/checks.py prints them and draws the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from src.config.schema import Config
from src.data.dataset import ImageData, ImageSubset, load
from src.data.loader import TrainLoader
from src.models.registry import build_model, count_parameters
from src.training.device import choose_device, compute_reproducibly


def split_sizes(data: ImageData) -> dict[str, int]:
    """D2: the number of images in each split."""
    return {"train": len(data.train), "val": len(data.val), "test": len(data.test)}


def class_counts(part: ImageSubset, classes: int) -> list[int]:
    """D4: the number of images of each class in `part`."""
    return [int(count) for count in np.bincount(part.labels[part.indices], minlength=classes)]


def baselines(train: ImageSubset, part: ImageSubset, classes: int, seed: int) -> dict[str, float]:
    """M0: the accuracy on `part` of always predicting the most frequent training class, and of uniform guesses."""
    labels = part.labels[part.indices]
    majority = int(np.argmax(class_counts(train, classes)))
    generator = torch.Generator().manual_seed(seed)
    guesses = torch.randint(classes, (len(labels),), generator=generator).numpy()
    return {
        "majority_class": majority,
        "majority_accuracy": float(np.mean(labels == majority)),
        "random_accuracy": float(np.mean(labels == guesses)),
        "chance": 1 / classes,
    }


def first_batch(config: Config, loader: TrainLoader, device: torch.device) -> dict[str, Any]:
    """D11, M1, M2: shapes, number of parameters, initial loss, and whether gradients reach every weight.

    The gradient norm is the L2 norm over all parameters. A network that prefers no class has an initial loss of
    log(classes).
    """
    network = build_model(config.model).to(device).train()
    images, labels = loader.get(0, 0)
    logits = network(images)
    loss = functional.cross_entropy(logits, labels)
    torch.autograd.backward(loss)
    norms = {name: float(p.grad.norm()) if p.grad is not None else 0.0 for name, p in network.named_parameters()}
    return {
        "images": list(images.shape),
        "labels": list(labels.shape),
        "logits": list(logits.shape),
        "parameters": count_parameters(network),
        "initial_loss": loss.item(),
        "expected_loss": math.log(config.model.num_classes),
        "gradient_norm": math.sqrt(math.fsum(norm**2 for norm in norms.values())),
        "weights_without_gradient": [name for name, norm in norms.items() if norm == 0.0],
    }


def example_images(config: Config, loader: TrainLoader, count: int) -> list[tuple[Tensor, Tensor, int]]:
    """D10: (before, augmented, label) of the first images of the first batch, float (3, H, W) in [0, 1]."""
    raw, labels = loader.raw(0, 0)
    normalize = config.preprocess.normalize
    mean, std = (torch.tensor(values, device=raw.device).view(3, 1, 1) for values in (normalize.mean, normalize.std))
    after = (loader.prepare(raw, 0, 0) * std + mean).clamp(0, 1)
    return [(raw[i].float().cpu() / 255, after[i].cpu(), int(labels[i])) for i in range(min(count, len(raw)))]


def verdicts(report: dict[str, Any]) -> Sequence[tuple[bool, str]]:
    """What must hold before training is worthwhile: (whether it holds, description) each."""
    batch, counts = report["batch"], report["class_counts"]
    return [
        (min(counts) > 0, f"every class has training images ({min(counts)} to {max(counts)} each)"),
        # Far from log(classes), the network starts out confident in wrong classes, or the labels do not match the
        # images' number of classes.
        (
            abs(batch["initial_loss"] - batch["expected_loss"]) < 0.15 * batch["expected_loss"],
            f"initial loss {batch['initial_loss']:.4f} is near log(classes) = {batch['expected_loss']:.4f}",
        ),
        (
            math.isfinite(batch["gradient_norm"]) and not batch["weights_without_gradient"],
            f"gradients reach every weight (L2 norm {batch['gradient_norm']:.3f})",
        ),
        (batch["images"][1:] == report["input_shape"], f"a batch is {batch['images']}, as model.input_shape says"),
    ]


def measure(config: Config, examples: int) -> tuple[dict[str, Any], list[tuple[Tensor, Tensor, int]], tuple[str, ...]]:
    """All answers for one configuration, up to `examples` example images, and the names of the classes."""
    compute_reproducibly(config.train.seed)
    device = choose_device(config.train.device)
    data = load(config)
    loader = TrainLoader(config, data.train, device)
    classes = config.model.num_classes
    report = {
        "dataset": config.dataset.name,
        "classes": classes,
        "input_shape": list(config.model.input_shape),
        "splits": split_sizes(data),
        "source": data.facts,
        "class_counts": class_counts(data.train, classes),
        "baselines": {
            name: baselines(data.train, part, classes, config.train.seed)
            for name, part in (("val", data.val), ("test", data.test))
            if len(part)
        },
        "batch": first_batch(config, loader, device),
    }
    return report, example_images(config, loader, examples), data.class_names
