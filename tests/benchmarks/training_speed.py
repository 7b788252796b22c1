"""Compares the training of a configuration with a conventional program, on this machine's device.

    python -m tests.benchmarks.training_speed [--config FILE] [--set KEY=VALUE] [--batches 32,64,256] [--pairs 5]
        [--only step|fed|whole] [--json FILE]

step    one optimizer step on images that are on the device, for each precision that the device has
fed     the same with the batches of our pipeline, against the same batches held in memory
whole   from encoded images to trained network: a DataLoader with workers, PIL, torchvision's transforms and a plain
        loop, against our loader and step

Both sides take turns. Prints the median images/s of each, its spread, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from src.config.loading import load_config
from src.config.schema import Augment, Config
from src.data.dataset import ImageData, load
from src.models.registry import build_model
from src.training.device import choose_device, compute_reproducibly, reuse_freed_memory, set_malloc_thresholds
from src.training.learner import Learner
from tests.benchmarks.table import in_turn

Work = Callable[[], int]


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Encoded images, decoded by PIL and transformed by torchvision, as its documentation shows."""

    def __init__(self, config: Config, data: ImageData, count: int, *, augmented: bool = True) -> None:
        from PIL import Image
        from torchvision import transforms

        images, self.labels = data.train.take(torch.arange(min(count, len(data.train))))
        self.encoded = []
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=90)
            self.encoded.append(file.getvalue())
        augment, scale = config.augment if augmented else Augment(), config.preprocess.normalize
        steps: list[Any] = [transforms.RandomHorizontalFlip()] if augment.random_flip else []
        if augment.random_crop:
            steps.append(transforms.RandomCrop(augment.random_crop.size, padding=augment.random_crop.padding))
        if jitter := augment.color_jitter:
            steps.append(transforms.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue))
        steps += [transforms.ToTensor(), transforms.Normalize(scale.mean, scale.std)]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.open(io.BytesIO(self.encoded[index])).convert("RGB")), int(self.labels[index])


def plain_settings() -> None:
    """torch's defaults, which a conventional program does not change."""
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False


def plain_step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    optimizer.zero_grad()
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def plain_network(config: Config, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = build_model(config.model).to(device).train()
    return network, torch.optim.Adam(network.parameters(), lr=config.train.optimizer.lr)


def steps_of(learner: Learner) -> Work:
    """A step of ours per call, on the batches of the learner's loader."""
    numbers = itertools.count()

    def work() -> int:
        # Without the last batch of an epoch, which may be smaller.
        _, _, labels = learner.step(next(numbers) % max(1, learner.loader.per_epoch - 1), 1e-3)
        return len(labels)

    return work


def held(learner: Learner, images: Tensor, labels: Tensor) -> Learner:
    """The learner with one batch, held in memory, in place of its loader's."""
    learner.loader.get = lambda epoch, batch: (images, labels)  # type: ignore[method-assign]
    return learner


def measure(sides: dict[str, Work], device: torch.device, pairs: int, seconds: float) -> dict[str, list[float]]:
    """images/s of each side, `pairs` times in turn."""

    def rate(name: str) -> float:
        compute_plainly(name)
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            images += sides[name]()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return images / (time.perf_counter() - start)

    return in_turn({name: partial(rate, name) for name in sides}, pairs)


def compute_plainly(name: str) -> None:
    """Global switches of torch and malloc, which both sides share in this process."""
    plain = name == "plain"
    if plain:
        # Where glibc's own thresholds are after it has freed large tensors: there is no way back to the very default.
        set_malloc_thresholds(mmap_bytes=32 * 2**20, trim_bytes=64 * 2**20)
        ctypes.CDLL(None).malloc_trim(0)
    else:
        reuse_freed_memory()
    torch.backends.cudnn.deterministic = not plain
    tf32 = plain or "tf32" in name
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = not plain and tf32


def show(title: str, found: dict[str, list[float]], base: str) -> dict[str, Any]:
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, values in found.items():
        spread = f"from {min(values):.0f} to {max(values):.0f}"
        print(f"{title:24}{name:22}{medians[name]:10.0f} images/s  {spread:28} {medians[name] / medians[base]:6.2f}x")
    return {
        "name": title,
        "images_per_s": found,
        "ratios": {name: value / medians[base] for name, value in medians.items()},
    }


def with_(config: Config, **train: Any) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=train)})


def step_sides(config: Config, data: ImageData, device: torch.device, batch: int, *, compiled: bool) -> dict[str, Work]:
    compute_reproducibly(0)
    images = torch.randn(batch, *config.model.input_shape, device=device)
    labels = torch.randint(config.model.num_classes, (batch,), device=device)
    network, optimizer = plain_network(config, device)

    def plain() -> int:
        plain_step(network, optimizer, images, labels)
        return batch

    sides: dict[str, Work] = {"plain": plain}
    precisions = ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32",)
    for precision in precisions:
        for compile_ in (False, True) if compiled and precision == precisions[-1] else (False,):
            own = with_(config, batch_size=batch, precision=precision, compile=compile_)
            name = precision + (" compiled" if compile_ else "")
            sides[name] = steps_of(held(Learner(own, data.train), images, labels))
    return sides


def endless(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch after the other."""
    while True:
        yield from loader


def fed_sides(config: Config, data: ImageData) -> dict[str, Work]:
    fed, memory = Learner(config, data.train), Learner(config, data.train)
    return {"held in memory": steps_of(held(memory, *memory.loader.get(0, 0))), "our pipeline": steps_of(fed)}


def whole_sides(config: Config, data: ImageData, device: torch.device, workers: int) -> dict[str, Work]:
    dataset = PlainImages(config, data, 4096)
    loader = DataLoader(
        dataset,
        config.train.batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        drop_last=True,
    )
    network, optimizer = plain_network(config, device)

    batches = endless(loader)

    def plain() -> int:
        images, labels = next(batches)
        plain_step(network, optimizer, images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        return len(labels)

    return {"plain": plain, "ours": steps_of(Learner(config, data.train))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/config.yaml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY.PATH=VALUE")
    parser.add_argument("--batches", default="32,64,256")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=("step", "fed", "whole"))
    parser.add_argument("--compile", action="store_true", help="step: also the last precision with torch.compile")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    config = load_config(asked.config, asked.overrides)
    device, data, found = choose_device(config.train.device), load(config), []
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.processor()} x {os.cpu_count()}"
    print(f"{name}, torch {torch.__version__}, {asked.pairs} pairs of {asked.seconds:g} s")
    if asked.only in (None, "step"):
        for batch in map(int, asked.batches.split(",")):
            sides = step_sides(config, data, device, batch, compiled=asked.compile)
            found.append(show(f"step, batch {batch}", measure(sides, device, asked.pairs, asked.seconds), "plain"))
    for batch in map(int, asked.batches.split(",")):
        own = with_(config, batch_size=batch)
        if asked.only in (None, "fed"):
            times = measure(fed_sides(own, data), device, asked.pairs, asked.seconds)
            found.append(show(f"fed, batch {batch}", times, "held in memory"))
        if asked.only in (None, "whole"):
            times = measure(whole_sides(own, data, device, asked.workers), device, asked.pairs, asked.seconds)
            found.append(show(f"whole, batch {batch}", times, "plain"))
    if asked.json:
        asked.json.write_text(json.dumps({"device": name, "torch": torch.__version__, "found": found}, indent=1))


if __name__ == "__main__":
    main()
