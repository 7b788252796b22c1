"""Loss and classification metrics of a network on a set of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.config.schema import Config
from src.data.dataset import ImageSubset
from src.data.loader import to_network
from src.progress import StopCheck

# Large enough to use a whole slice. Not configurable: the last bits of the sums depend on it.
_BATCH = 250


def evaluate_split(
    network: nn.Module, part: ImageSubset, config: Config, device: torch.device, should_stop: StopCheck
) -> dict[str, float] | None:
    """`loss` (mean cross-entropy in nats) and the configured metrics over all images of `part`, without augmentation.

    None if `should_stop` returned true before the end. Leaves `network` in evaluation mode.
    """
    network.eval()
    # All sums stay on the device until the end: reading one would make the host wait for each batch.
    loss = torch.zeros((), dtype=torch.float64, device=device)
    classes = config.model.num_classes
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    top5 = torch.zeros((), dtype=torch.int64, device=device)
    with torch.inference_mode():
        for start in range(0, len(part), _BATCH):
            if should_stop():
                return None
            raw, labels = part.take(torch.arange(start, min(start + _BATCH, len(part))))
            labels = labels.to(device)
            logits = network(to_network(raw.to(device).float() / 255, config))
            loss += functional.cross_entropy(logits, labels, reduction="sum").double()
            # Entry [true, predicted] of the confusion matrix, flattened.
            confusion += torch.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)
            top5 += (logits.topk(min(5, classes), 1).indices == labels[:, None]).sum()
    computed = {
        "accuracy": accuracy(confusion.view(classes, classes)),
        "top5_accuracy": top5.item() / len(part),
        "macro_f1": macro_f1(confusion.view(classes, classes)),
    }
    return {"loss": loss.item() / len(part), **{name: computed[name] for name in config.metrics.measured}}


def accuracy(confusion: Tensor) -> float:
    """The share of correct predictions; `confusion` is int (classes, classes), with a row per true class."""
    return float(confusion.diagonal().sum().item() / confusion.sum().item())


def macro_f1(confusion: Tensor) -> float:
    """The unweighted mean of the classes' F1 scores; `confusion` as in `accuracy`.

    A class that neither occurs nor is predicted counts as 0.
    """
    # F1 = 2 TP / (2 TP + FP + FN): a class's row and column both count its true positives.
    hits = confusion.diagonal().double()
    either = (confusion.sum(0) + confusion.sum(1)).double()
    return float((2 * hits / either.clamp(min=1)).mean().item())
