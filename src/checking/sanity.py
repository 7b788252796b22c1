"""Checks of the data and the model before any training, with the report's numbers: D1 to D11, M0 to M2.

`measure` answers all of them with plain values. src/checks.py prints them, draws the figures beside them and writes
them to artifacts/checks/<experiment>/checks.json, whose keys are:

    dataset, classes, input_shape   D1   name of the data set, number of classes, [channels, height, width]
    splits                          D2   {train, val, test: number of images}
    split                           D3   {from, ratio: {val, test}, seed, stratified, method}; `from` is the split of
                                         the source that val and test are drawn from, `ratio` their shares of the two
                                         together, `stratified` whether each has equally many images of every class
    class_counts                    D4   training images of each class, in label order
    class_table                     D4   [{label, name, train, val, test}], in label order; names as in the data set
    source                          D5   {train, valid: {count, modes, sizes, changes}} of the images as they came
    overlaps                        D5   {val: {train}, test: {train, val}}: how many images of one split are also in
                                         the other, pixel for pixel
    preprocessing                   D6   [{operation, parameters, purpose}] in order
    preprocessing_equal             D7   {equal, how}: measured, not promised
    augmentations                   D8   [{operation, parameters, probability, keeps_label, unless}] in order;
                                    D9   keeps_label and unless say when an operation keeps the class of an image
    examples                        D10  [{label, name}] of the columns of examples.png
    batch                           D11  {images, labels, logits: shapes; parameters}
                                    M2   and {initial_loss, expected_loss: nats; gradient_norm: L2 over all weights;
                                         weights_without_gradient: names}
    baselines                       M0   {val, test: {majority_class, majority_accuracy, random_accuracy, chance}}
    layers                          M1   [{name, layer, output, parameters}] in the order of execution
    options                         M1   [{option, value, role, parameters: [{value, parameters}]}] of the network's
                                         main options, and of those in the grid
    figures                              {classes, examples: file name beside checks.json}
    verdicts                             [{name, holds, what}], see `verdicts`
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from src.checking.figures import Example
from src.config.schema import Config
from src.config.validation import AXES
from src.data.dataset import ImageData, ImageSubset, load
from src.data.loader import TrainLoader, to_network
from src.data.operations import augmentations, preprocessing
from src.models.registry import NETWORKS, build_model, count_parameters
from src.models.summary import layer_table, option_facts
from src.training.device import choose_device, compute_reproducibly

_AUGMENTED = 2


def split_facts(config: Config, data: ImageData) -> dict[str, Any]:
    """D3: how val and test were drawn, and whether each has equally many images of every class."""
    split, classes = config.dataset.split, config.model.num_classes
    parts = {"val": data.val, "test": data.test}
    drawn = sum(len(part) for part in parts.values())
    counts = [class_counts(part, classes) for part in parts.values()]
    return {
        "from": split.valid,
        "ratio": {name: len(part) / drawn for name, part in parts.items()},
        "seed": split.seed,
        "stratified": all(min(each) == max(each) for each in counts),
        "method": "for each class in label order, torch.randperm with one generator permutes its images; "
        f"the first {split.test // classes} go to test, the next {split.val // classes} to val",
    }


def class_counts(part: ImageSubset, classes: int) -> list[int]:
    """D4: the number of images of each class in `part`."""
    return [int(count) for count in np.bincount(part.labels[part.indices], minlength=classes)]


def class_table(data: ImageData, classes: int) -> list[dict[str, Any]]:
    """D4: label, name and number of images in each split, for every class."""
    parts = {name: class_counts(getattr(data, name), classes) for name in ("train", "val", "test")}
    return [
        {"label": label, "name": name, **{part: counts[label] for part, counts in parts.items()}}
        for label, name in enumerate(data.class_names)
    ]


def overlaps(data: ImageData) -> dict[str, dict[str, int]]:
    """D5: for val and test, how many of their images are also in the splits that they must be new to."""
    new_to = {"val": ("train",), "test": ("train", "val")}
    return {
        part: {other: getattr(data, part).count_shared(getattr(data, other)) for other in others}
        for part, others in new_to.items()
        if len(getattr(data, part))
    }


def compare_preprocessing(config: Config, data: ImageData, device: torch.device) -> dict[str, Any]:
    """D7: whether a training image, with the augmentation off, enters the network as an evaluated one does."""
    plain = config.model_copy(update={"augment": type(config.augment)()})
    loader = TrainLoader(plain, data.train, device)
    raw, _ = loader.raw(0, 0)
    equal = bool(torch.equal(loader.prepare(raw, 0, 0), to_network(raw.float() / 255, config)))
    return {
        "equal": equal,
        "how": f"the first batch ({len(raw)} images), with the augmentation off, goes through the code of the training "
        "and through that of the evaluation; all splits are decoded by the same code, and val and test are never "
        "augmented",
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


def searched_options(config: Config) -> dict[str, Any]:
    """M1: the main options of the network, and those that the grid searches, with the values to try."""
    searched = {AXES.get(axis, axis): values for axis, values in config.hparams.axes.items()}
    options = {
        path.removeprefix("model."): values
        for path, values in searched.items()
        if path.startswith("model.") and path != "model.type"
    }
    main = {name: (getattr(config.model, name),) for name in NETWORKS[config.model.type].main_options}
    return {**main, **options}


def example_images(config: Config, loader: TrainLoader, count: int) -> list[Example]:
    """D10: the first images of the first batch, before and after augmentation."""
    raw, labels = loader.raw(0, 0)
    normalize = config.preprocess.normalize
    mean, std = (torch.tensor(values, device=raw.device).view(3, 1, 1) for values in (normalize.mean, normalize.std))
    # Augmented as in the first epochs, were they to see this batch.
    after = [(loader.prepare(raw, epoch, 0) * std + mean).clamp(0, 1) for epoch in range(_AUGMENTED)]
    before, *augmented = (images.permute(0, 2, 3, 1).cpu().numpy() for images in (raw.float() / 255, *after))
    return [
        Example(before[i], [images[i] for images in augmented], int(labels[i])) for i in range(min(count, len(raw)))
    ]


def verdicts(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What must hold before training is worthwhile: `name`, `holds` and `what` each."""
    batch, counts = report["batch"], report["class_counts"]
    shape, equal = batch["images"], report["preprocessing_equal"]["equal"]
    # Far from log(classes), the network starts out confident in wrong classes, or the labels do not match the
    # images' number of classes.
    near = abs(batch["initial_loss"] - batch["expected_loss"]) < 0.15 * batch["expected_loss"]
    flows = math.isfinite(batch["gradient_norm"]) and not batch["weights_without_gradient"]
    facts = [
        ("classes", min(counts) > 0, f"every class has training images ({min(counts)} to {max(counts)} each)"),
        ("stratified", report["split"]["stratified"], "val and test have equally many images of every class"),
        ("preprocessing", equal, "train, val and test are preprocessed equally"),
        ("loss", near, f"initial loss {batch['initial_loss']:.4f} is near log(classes) = {batch['expected_loss']:.4f}"),
        ("gradients", flows, f"gradients reach every weight (L2 norm {batch['gradient_norm']:.3f})"),
        ("shape", shape[1:] == report["input_shape"], f"a batch is {shape}, as model.input_shape says"),
    ]
    return [{"name": name, "holds": holds, "what": what} for name, holds, what in facts]


def measure(config: Config, examples: int) -> tuple[dict[str, Any], list[Example]]:
    """All answers for one configuration, and up to `examples` example images."""
    compute_reproducibly(config.train.seed)
    device = choose_device(config.train.device)
    data = load(config)
    loader = TrainLoader(config, data.train, device)
    classes, seed = config.model.num_classes, config.train.seed
    shown = example_images(config, loader, examples)
    report = {
        "dataset": config.dataset.name,
        "classes": classes,
        "input_shape": list(config.model.input_shape),
        "splits": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "split": split_facts(config, data),
        "source": data.facts,
        "overlaps": overlaps(data),
        "class_counts": class_counts(data.train, classes),
        "class_table": class_table(data, classes),
        "preprocessing": preprocessing(config),
        "preprocessing_equal": compare_preprocessing(config, data, device),
        "augmentations": augmentations(config),
        "examples": [{"label": each.label, "name": data.class_names[each.label]} for each in shown],
        "baselines": {
            name: baselines(data.train, part, classes, seed)
            for name, part in (("val", data.val), ("test", data.test))
            if len(part)
        },
        "batch": first_batch(config, loader, device),
        "layers": layer_table(build_model(config.model), config.model.input_shape),
        "options": option_facts(config.model, searched_options(config)),
    }
    return {**report, "verdicts": verdicts(report)}, shown
