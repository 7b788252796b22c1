"""Checks of the data and the model before any training, with the report's numbers: D1 to D11, M0 to M2.

`measure` answers all of them with plain values. src/checks.py prints them, draws the figures beside them and writes
them to artifacts/checks/<experiment>/checks.json, whose keys are:

    dataset, classes, input_shape   D1   name of the data set, number of classes, [channels, height, width] of images
    inputs                          D1   {images: whether they are images, type: their mode, or the type of others}
    splits                          D2   {train, val, test: number of examples}
    split                           D3   {from, ratio, whole, seed, stratified, even, method}; `from` is the split of
                                         the source that images are drawn from, null if none are; `ratio` {part: its
                                         share of that split}; `whole` {part: the split that it is}; `stratified`
                                         whether each class is in each part that is drawn by its share, give or take
                                         one image; `even` whether they have equally many images of every class
    class_counts                    D4   training examples of each class, in label order
    class_table                     D4   [{label, name, train, val, test}], in label order; names as in the data set
    source                          D5   {split: {count, modes, sizes, changes}} of the inputs as they came
    overlaps                        D5   {val: {train}, test: {train, val}}: how many inputs of one split are also in
                                         the other, value for value
    preprocessing                   D6   [{operation, parameters, purpose}] in order
    preprocessing_equal             D7   {equal, how}: measured, not promised
    augmentations                   D8   [{operation, parameters, probability, keeps_label, unless}] in order;
                                    D9   keeps_label and unless say when an operation keeps the class of an image
    examples                        D10  [{label, name}] of the columns of examples.png
    batch                           D11  {images, labels, logits: shapes; parameters: trainable, all_parameters}
                                    M2   and {initial_loss, expected_loss: nats; gradient_norm: L2 over all weights
                                         that are trained; weights_without_gradient: names of such}
    baselines                       M0   {val, test: {majority_class, majority_accuracy, random_accuracy, chance}}
    layers                          M1   [{name, layer, output, parameters, frozen}], see `layer_table`
    options                         M1   [{option, value, role, parameters: [{value, parameters}]}] of the network's
                                         main options, or of all that an own one has, and of those in the grid
    figures                              {classes, examples: file name beside checks.json}
    verdicts                             [{name, holds, what}], see `verdicts`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from src.checking.figures import Example
from src.config.schema import Config
from src.config.validation import key_path
from src.data.dataset import ImageData, ImageSubset, load
from src.data.inputs import are_images
from src.data.loader import TrainLoader, from_network, to_network
from src.data.operations import augmentations, preprocessing
from src.models.others import declared_options
from src.models.registry import build_model, count_all_parameters, count_parameters, is_ours, known
from src.models.summary import layer_table, option_facts
from src.training.device import choose_device, compute_reproducibly

_AUGMENTED = 2


def split_facts(config: Config, data: ImageData) -> dict[str, Any]:
    """D3: which split each part is from, how val and test were drawn, and whether by class."""
    split, classes = config.dataset.split, config.model.classes
    parts = {"train": split.train, "val": split.val, "test": split.test}
    drawn = {name: getattr(data, name) for name, part in parts.items() if part and not isinstance(part, str)}
    ratio, stratified, even = dict[str, float](), True, True
    for name, part in drawn.items():
        there = np.bincount(part.labels[part.labels < classes], minlength=classes)
        counts = np.array(class_counts(part, classes))
        ratio[name] = len(part) / int(there.sum())
        stratified = stratified and bool((np.abs(counts - ratio[name] * there) <= 1).all())
        even = even and bool(counts.min() == counts.max())
    sizes = {name: len(part) // classes if even else None for name, part in drawn.items()}
    whole = {name: part for name, part in parts.items() if isinstance(part, str)}
    if split.pool == split.train:
        del whole["train"]
    return {
        "from": split.pool,
        "ratio": ratio,
        "whole": whole,
        "seed": split.seed,
        "stratified": stratified,
        "even": even,
        "method": _method(sizes, rest="train" not in whole),
    }


def _method(sizes: Mapping[str, int | None], rest: bool) -> str:
    """How the parts are drawn. `sizes`: the images of each class in a part, None if it is by the class's share."""
    if not sizes:
        return "no examples are drawn"
    order = [name for name in ("test", "val") if name in sizes]
    goes = [
        f"the {place} {sizes[name] or 'of them, by its share,'} go to {name}"
        for place, name in zip(("first", "next"), order, strict=False)
    ]
    start = "for each class in label order, torch.randperm with one generator permutes its examples"
    return f"{start}; {', '.join(goes)}{', and the others to train' if rest else ''}"


def class_counts(part: ImageSubset, classes: int) -> list[int]:
    """D4: the number of examples of each class in `part`."""
    return [int(count) for count in np.bincount(part.labels[part.indices], minlength=classes)]


def class_table(data: ImageData, classes: int) -> list[dict[str, Any]]:
    """D4: label, name and number of examples in each split, for every class."""
    parts = {name: class_counts(getattr(data, name), classes) for name in ("train", "val", "test")}
    return [
        {"label": label, "name": name, **{part: counts[label] for part, counts in parts.items()}}
        for label, name in enumerate(data.class_names)
    ]


def overlaps(data: ImageData) -> dict[str, dict[str, int]]:
    """D5: for val and test, how many of their inputs are also in the splits that they must be new to."""
    new_to = {"val": ("train",), "test": ("train", "val")}
    return {
        part: {other: getattr(data, part).count_shared(getattr(data, other)) for other in others}
        for part, others in new_to.items()
        if len(getattr(data, part))
    }


def compare_preprocessing(config: Config, data: ImageData, device: torch.device) -> dict[str, Any]:
    """D7: whether a training input, with the augmentation off, enters the network as an evaluated one does."""
    plain = config.model_copy(update={"augment": type(config.augment)()})
    loader = TrainLoader(plain, data.train, device)
    raw, _ = loader.raw(0, 0)
    equal = bool(torch.equal(loader.prepare(raw, 0, 0), to_network(raw, config)))
    count, through = len(raw), "goes through the code of the training and through that of the evaluation"
    if not are_images(data.train.images):
        return {"equal": equal, "how": f"the first batch ({count} inputs) {through}"}
    return {
        "equal": equal,
        "how": f"the first batch ({count} images), with the augmentation off, {through}; all splits are decoded by the "
        "same code, and val and test are never augmented",
    }


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
    """D11, M1, M2: shapes, number of parameters, initial loss, and whether gradients reach every trainable weight.

    The gradient norm is the L2 norm over all of them. A network that prefers no class has an initial loss of
    log(classes).
    """
    network = build_model(config.model, config.project.path).to(device).train()
    images, labels = loader.get(0, 0)
    logits = network(images)
    loss = functional.cross_entropy(logits, labels)
    torch.autograd.backward(loss)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    norms = {name: 0.0 if p.grad is None else float(p.grad.norm()) for name, p in trained.items()}
    return {
        "images": list(images.shape),
        "labels": list(labels.shape),
        "logits": list(logits.shape),
        "parameters": count_parameters(network),
        "all_parameters": count_all_parameters(network),
        "initial_loss": loss.item(),
        "expected_loss": math.log(config.model.classes),
        "gradient_norm": math.sqrt(math.fsum(norm**2 for norm in norms.values())),
        "weights_without_gradient": [name for name, norm in norms.items() if norm == 0.0],
    }


def searched_options(config: Config) -> dict[str, Any]:
    """M1: the main options of the network, and those that the grid searches, with the values to try."""
    searched = {key_path(config, axis): values for axis, values in config.hparams.axes.items()}
    options = {
        path.removeprefix("model."): values
        for path, values in searched.items()
        if path.startswith("model.") and path != "model.type"
    }
    main = {name: (getattr(config.model, name),) for name in known(config.model.type).main_options}
    declared = {} if is_ours(config.model.type) else declared_options(config.model, config.project.path)
    return {**main, **{f"options.{name}": (value,) for name, value in declared.items()}, **options}


def example_images(config: Config, loader: TrainLoader, count: int) -> list[Example]:
    """D10: the first images of the first batch, before and after augmentation; none of other inputs."""
    raw, labels = loader.raw(0, 0)
    if raw.dtype != torch.uint8:
        return []
    # Augmented as in the first epochs, were they to see this batch.
    epochs = range(_AUGMENTED if augmentations(config) else 0)
    after = [from_network(loader.prepare(raw, epoch, 0), config) for epoch in epochs]
    before, *augmented = (images.permute(0, 2, 3, 1).cpu().numpy() for images in (raw.float() / 255, *after))
    return [
        Example(before[i], [images[i] for images in augmented], int(labels[i])) for i in range(min(count, len(raw)))
    ]


def verdicts(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What must hold before training is worthwhile: `name`, `holds` and `what` each."""
    batch, counts = report["batch"], report["class_counts"]
    shape, equal = batch["images"], report["preprocessing_equal"]["equal"]
    # Far from log(classes), the network starts out confident in wrong classes, or the labels do not match the
    # number of classes.
    near = abs(batch["initial_loss"] - batch["expected_loss"]) < 0.15 * batch["expected_loss"]
    flows = math.isfinite(batch["gradient_norm"]) and not batch["weights_without_gradient"]
    facts = [
        ("classes", min(counts) > 0, f"every class has training examples ({min(counts)} to {max(counts)} each)"),
        ("stratified", report["split"]["stratified"], _stratified(report["split"])),
        ("preprocessing", equal, "train, val and test are preprocessed equally"),
        ("loss", near, f"initial loss {batch['initial_loss']:.4f} is near log(classes) = {batch['expected_loss']:.4f}"),
        ("gradients", flows, f"gradients reach every weight that is trained (L2 norm {batch['gradient_norm']:.3f})"),
        ("shape", shape[1:] == report["input_shape"], f"a batch is {shape}, as model.input_shape says"),
    ]
    return [{"name": name, "holds": holds, "what": what} for name, holds, what in facts]


def _stratified(split: Mapping[str, Any]) -> str:
    parts = " and ".join(split["ratio"])
    how = "equally many examples of every class" if split["even"] else "examples of every class by its share"
    return f"{parts} have {how}" if parts else "val and test are splits of the data set, as they are"


def measure(config: Config, examples: int) -> tuple[dict[str, Any], list[Example]]:
    """All answers for one configuration, and up to `examples` example images."""
    compute_reproducibly(config.train.seed)
    device = choose_device(config.train.device)
    data = load(config)
    loader = TrainLoader(config, data.train, device)
    classes, seed = config.model.classes, config.train.seed
    shown, images = example_images(config, loader, examples), are_images(data.train.images)
    report = {
        "dataset": config.dataset.name,
        "classes": classes,
        "input_shape": list(config.model.shape),
        "inputs": {"images": images, "type": config.preprocess.mode if images else str(data.train.images.dtype)},
        "splits": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "split": split_facts(config, data),
        "source": data.facts,
        "overlaps": overlaps(data),
        "class_counts": class_counts(data.train, classes),
        "class_table": class_table(data, classes),
        "preprocessing": preprocessing(config, images=images),
        "preprocessing_equal": compare_preprocessing(config, data, device),
        "augmentations": augmentations(config),
        "examples": [{"label": each.label, "name": data.class_names[each.label]} for each in shown],
        "baselines": {
            name: baselines(data.train, part, classes, seed)
            for name, part in (("val", data.val), ("test", data.test))
            if len(part)
        },
        "batch": first_batch(config, loader, device),
        "layers": layer_table(
            build_model(config.model, config.project.path), config.model.shape, loader.get(0, 0)[0].dtype
        ),
        "options": option_facts(config.model, config.project.path, searched_options(config)),
    }
    return {**report, "verdicts": verdicts(report)}, shown
