"""Loss, classification metrics and per-image predictions of a network on a set of images."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay.progress import StopCheck
from relay.runs.predictions import Predictions
from src.config.schema import Config
from src.data.dataset import ImageSubset
from src.data.loader import to_network
from src.training.measures import metrics_of


def evaluation_batch(device: torch.device) -> int:
    """How many images are evaluated at a time.

    Many on a GPU. On a CPU, so few that `reuse_freed_memory` keeps all of their memory, which is 1.7 times as fast.
    Not configurable: the last bits of the logits may depend on it.
    """
    return 50 if device.type == "cpu" else 250


def evaluate_split(
    network: nn.Module,
    part: ImageSubset,
    config: Config,
    device: torch.device,
    should_stop: StopCheck,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> tuple[dict[str, float], Predictions] | None:
    """`loss` (mean cross-entropy in nats) and the configured metrics over all images of `part`, without augmentation,
    and what the network predicted for each image, in the order of `part`. With `metrics.test_time_flip`, the predicted
    probabilities are the means of those of the image and its mirror image.

    `forward` maps normalised images to logits, float32; by default, it is `network` itself. None if `should_stop`
    returned true before the end. Leaves `network` in evaluation mode.
    """
    network.eval()
    # On the device until the end: reading a value would make the host wait for each batch. Allocated before the first
    # batch: small tensors that stay where a batch's activations were split the free memory, and on a CPU, the next
    # activations then take new memory, batch after batch.
    kinds = (torch.int64, torch.int64, torch.float32, torch.float32, torch.bool)
    columns = [torch.empty(len(part), dtype=kind, device=device) for kind in kinds]
    size = evaluation_batch(device)
    with torch.inference_mode():
        for start in range(0, len(part), size):
            if should_stop():
                return None
            _measure_batch(
                forward or network, part, config, [column[start : start + size] for column in columns], start
            )
    label, predicted, confidence, loss, in_top5 = (column.cpu() for column in columns)
    predictions = Predictions(
        label.numpy(),
        predicted.numpy(),
        confidence.double().numpy(),
        loss.double().numpy(),
        in_top5.numpy(),
        part.digest,
    )
    computed = metrics_of(predictions, config.model.classes)
    return {name: computed[name] for name in ("loss", *config.metrics.measured)}, predictions


def _measure_batch(
    predict: Callable[[Tensor], Tensor], part: ImageSubset, config: Config, columns: list[Tensor], start: int
) -> None:
    """Write the columns of `_predict` for the images from `start` on to `columns`; all else is freed on return."""
    device = columns[0].device
    raw, labels = part.take(torch.arange(start, start + len(columns[0])))
    images = to_network(raw.to(device), config)
    logits = predict(images)
    if config.metrics.test_time_flip:
        # Before the next call: a compiled network reuses the memory of its output.
        log_probabilities = logits.log_softmax(1)
        mirrored = predict(images.flip(-1)).log_softmax(1)
        logits = torch.logaddexp(log_probabilities, mirrored) - math.log(2)
    for column, values in zip(columns, _predict(logits, labels.to(device)), strict=True):
        column.copy_(values)


def _predict(logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The columns of `Predictions`, in their order, for the logits (B, classes) and labels (B,) of a batch."""
    predicted = logits.argmax(1)
    confidence = logits.softmax(1).gather(1, predicted[:, None])[:, 0]
    loss = functional.cross_entropy(logits, labels, reduction="none")
    in_top5 = (logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]).any(1)
    return labels, predicted, confidence, loss, in_top5
