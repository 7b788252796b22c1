"""The rules between the sections of a configuration. Each message says which value to set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from relay.config.messages import nearest, section_of
from src.config.schema import Config
from src.models.registry import NETWORKS, content_of

# The short names that `hparams` knows for its axes; any other axis is a key path of the configuration.
AXES: Mapping[str, str] = {
    "lr": "train.optimizer.lr",
    "batch_size": "train.batch_size",
    "weight_decay": "train.optimizer.weight_decay",
    "momentum": "train.optimizer.momentum",
    "optimizer": "train.optimizer.name",
    "scheduler": "train.scheduler.name",
    "seed": "train.seed",
    "num_modules": "model.num_modules",
    "branch_channels": "model.branch_channels",
    "stem_channels": "model.stem_channels",
    "dropout": "model.dropout",
    "activation": "model.activation",
    "batch_norm": "model.batch_norm",
    "residual": "model.residual",
}
_SHORT_NAMES = {path: name for name, path in AXES.items()}
# The name of the training that the variants of `compare` differ from.
BASE = "base"
# Sections that do not change what a single cell computes, so a grid cannot search them.
_NOT_SEARCHED = ("hparams", "paths", "refine", "compare", "evaluation", "lr_finder", "checkpoint")


def disagreements(config: Config) -> Iterable[str]:
    """The problems of a configuration whose sections are each valid, as `key path: what is wrong, what to set`."""
    yield from _size_problems(config)
    yield from _class_problems(config)
    split = config.dataset.split
    if split.train == split.valid:
        yield (
            f"dataset.split.valid: {split.valid!r} is also dataset.split.train: val and test would be images that were "
            "trained on; name a split of other images"
        )
    select = config.metrics.select
    if select.direction != ("min" if select.name == "loss" else "max"):
        way = "min" if select.name == "loss" else "max"
        yield f"metrics.select.direction: {select.direction} would select the worst {select.name}; set it to {way}"
    finder = config.lr_finder
    if finder.min_lr >= finder.max_lr:
        yield f"lr_finder.min_lr: {finder.min_lr} must be below lr_finder.max_lr {finder.max_lr}"
    given = {} if config.hparams.epochs is None else {"train.epochs.": "epochs"}
    # Two axes may name one value in two ways (lr and train.optimizer.lr), or a section and a key in it.
    yield from _variant_problems(config)
    for axis, values in config.hparams.axes.items():
        yield from _axis_problems(axis, values)
        path = f"{AXES.get(axis, axis)}."
        other = next((name for known, name in given.items() if known.startswith(path) or path.startswith(known)), None)
        if other:
            yield f"hparams.{axis}: sets the same value as hparams.{other}; keep one of them, with all values to try"
        given.setdefault(path, axis)


def _size_problems(config: Config) -> Iterable[str]:
    size = config.preprocess.resize
    if config.model.input_shape[1:] != size:
        yield (
            f"model.input_shape: {list(config.model.input_shape)} does not fit preprocess.resize {list(size)}; "
            f"set model.input_shape=[3,{size[0]},{size[1]}]"
        )
    crop = config.augment.random_crop
    if crop and (crop.size, crop.size) != size:
        yield (
            f"augment.random_crop.size: {crop.size} does not fit preprocess.resize {list(size)}; "
            f"train and val images must have one size: set it to {size[0]}, or augment.random_crop=null"
        )
    network = config.model.type
    if network in NETWORKS:
        yield from NETWORKS[network].problems(config.model, size)
    else:
        yield f"model.type: {network!r} is not allowed; allowed: {' or '.join(map(repr, NETWORKS))}"


def _class_problems(config: Config) -> Iterable[str]:
    classes, part = config.model.num_classes, config.dataset.classes
    if part is not None and part != classes:
        yield f"model.num_classes: {classes} does not fit dataset.classes {part}; set both to one value"
    # The split draws the same number of images from each class, see src/data/split.py.
    for name, count in (("val", config.dataset.split.val), ("test", config.dataset.split.test)):
        if count % classes:
            lower = count - count % classes
            near = f"{lower} or {lower + classes}" if lower else f"{classes}"
            what = f"does not divide into {classes} classes evenly"
            yield f"dataset.split.{name}: {count} {what}; the nearest that do: {near}"


def _axis_problems(axis: str, values: Any) -> Iterable[str]:
    if axis not in AXES and not _is_searchable(axis):
        what = f"unknown axis{nearest(axis, [*AXES, 'epochs', 'tag'])}"
        yield f"hparams.{axis}: {what}; one of {', '.join(AXES)}, or a key path such as train.scheduler.gamma"
    elif not isinstance(values, tuple) or not values:
        yield f"hparams.{axis}: {plain(values)!r} is not a list of values to try; write [{plain(values)}]"
    elif len({json.dumps(plain(value)) for value in values}) != len(values):
        yield f"hparams.{axis}: {plain(values)!r} contains a value twice; keep each once"


def _variant_problems(config: Config) -> Iterable[str]:
    """The problems of `compare.variants` that can be seen without making their configurations."""
    for name, variant in config.compare.variants.items():
        where = f"compare.variants.{name}"
        if name == BASE:
            yield f"{where}: {BASE!r} is the name of the training that the variants differ from; give another one"
        paths = [AXES.get(path, path) for path in variant.set]
        for path in variant.set:
            if path not in AXES and not _is_searchable(path):
                known = [*AXES, *AXES.values()]
                yield f"{where}: unknown key path {path}{nearest(path, known)}; write one such as train.optimizer.lr"
        for path in dict.fromkeys(paths):
            if paths.count(path) > 1:
                yield f"{where}: sets {path} twice; keep one of them"


def is_same_experiment(config: Config, other: Config) -> bool:
    """Whether both describe the same training: equal values, apart from options that their network does not read."""
    return all(
        getattr(config, name) == getattr(other, name)
        for name in Config.model_fields
        if name not in (*_NOT_SEARCHED, "model")
    ) and content_of(config.model.model_dump()) == content_of(other.model.model_dump())


def _is_searchable(path: str) -> bool:
    names = path.split(".")
    schema: type[BaseModel] | None = Config
    if len(names) < 2 or names[0] in _NOT_SEARCHED:
        return False
    for name in names:
        fields = getattr(schema, "model_fields", {})
        if name not in fields:
            return False
        schema = section_of(fields[name].annotation)
    return True


def axis_name(path: str) -> str:
    """The short name of a key path, or the path itself if it has none."""
    return _SHORT_NAMES.get(path, path)


def plain(value: Any) -> Any:
    """Lists in place of tuples, as YAML and JSON write them."""
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
