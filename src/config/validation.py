"""The rules between the sections of a configuration. Each message says which value to set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from relay.config.messages import nearest, section_of
from relay.config.sections import as_lists
from relay.program.values import TABLE_COLUMNS
from src.config.schema import Config, Normalize, Split
from src.config.train_section import OPTIMIZERS, Optimizer, is_path
from src.models.registry import FAMILIES, NETWORKS, content_of, is_ours, network_of

# The short names that `hparams` knows for its axes; any other axis is a key path of the configuration.
AXES: Mapping[str, str] = {
    "type": "model.type",
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
# Sections whose keys are those of a network or an optimizer that is not ours.
_OPTIONS = ("model.options", "train.optimizer.options")
# Tables say of what it is the type.
_SHORT_NAMES = {path: name for name, path in AXES.items() if name != "type"}
# The name of the training that the variants of `compare` differ from.
BASE = "base"
# Sections that do not change what a single cell computes, so a grid cannot search them.
_NOT_SEARCHED = ("project", "hparams", "paths", "refine", "compare", "evaluation", "lr_finder", "checkpoint")


def key_path(config: Config, name: str) -> str:
    """The key path that the name of an axis, or in a variant, means. Where no network is ours, names that are not of
    the training mean options of the network.
    """
    path = AXES.get(name, name)
    if "." in name or path == "model.type" or (name in AXES and not path.startswith("model.")):
        return path
    return path if any(map(is_ours, networks_of(config))) else f"model.options.{name}"


def networks_of(config: Config) -> set[str]:
    """All values of `model.type` in an experiment: the base's, of an axis and of variants."""
    given = [{"model.type": (config.model.type,)}, config.hparams.axes]
    given += [{path: (value,) for path, value in variant.set.items()} for variant in config.compare.variants.values()]
    found = [values for each in given for path, values in each.items() if AXES.get(path, path) == "model.type"]
    return {value for values in found if isinstance(values, tuple) for value in values if isinstance(value, str)}


def disagreements(config: Config) -> Iterable[str]:
    """The problems of a configuration whose sections are each valid, as `key path: what is wrong, what to set`."""
    yield from _size_problems(config)
    yield from _channel_problems(config)
    yield from _class_problems(config)
    yield from _split_problems(config.dataset.split)
    yield from _optimizer_problems(config.train.optimizer)
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
        yield from _axis_problems(axis, key_path(config, axis), values)
        path = f"{key_path(config, axis)}."
        other = next((name for known, name in given.items() if known.startswith(path) or path.startswith(known)), None)
        if other:
            yield f"hparams.{axis}: sets the same value as hparams.{other}; keep one of them, with all values to try"
        given.setdefault(path, axis)


def _size_problems(config: Config) -> Iterable[str]:
    size, shape = config.preprocess.resize, config.model.input_shape
    # What the user's function gives is known once it was called, see src/data/dataset.py.
    if config.has_own_data:
        shape = "auto"
    fitting = (config.preprocess.channels, *size)
    if shape not in ("auto", fitting):
        yield (
            f"model.input_shape: {list(shape)} does not fit preprocess.resize {list(size)} and preprocess.mode "
            f"{config.preprocess.mode}; set model.input_shape={json.dumps(fitting)}, or auto"
        )
    crop = config.augment.random_crop
    if crop and (crop.size, crop.size) != size:
        yield (
            f"augment.random_crop.size: {crop.size} does not fit preprocess.resize {list(size)}; "
            f"train and val images must have one size: set it to {size[0]}, or augment.random_crop=null"
        )
    network = network_of(config.model.type)
    if network:
        yield from network.problems(config.model, size)
    else:
        ours = [*NETWORKS, *(f"{family}/NAME" for family in FAMILIES)]
        yield (
            f"model.type: {config.model.type!r} is not allowed{nearest(config.model.type, ours)}; allowed: "
            f"{', '.join(ours)}, or module:function of your project"
        )


def _channel_problems(config: Config) -> Iterable[str]:
    mode, channels, normalize = config.preprocess.mode, config.preprocess.channels, config.preprocess.normalize
    if isinstance(normalize, Normalize) and not config.has_own_data:
        for name, values in (("mean", normalize.mean), ("std", normalize.std)):
            if len(values) != channels:
                yield (
                    f"preprocess.normalize.{name}: {list(values)} is not one value for each channel of preprocess.mode "
                    f"{mode}, which has {channels}; give as many, or preprocess.normalize=auto"
                )
    jitter = config.augment.color_jitter
    # Colour operations on one channel, or on transparency, have no meaning.
    refused = {"L": ("saturation", "hue"), "RGBA": ("brightness", "contrast", "saturation", "hue")}.get(mode, ())
    for name in refused:
        if jitter and getattr(jitter, name):
            advice = "set it to 0, or preprocess.mode=RGB"
            yield f"augment.color_jitter.{name}: {getattr(jitter, name)} is not for preprocess.mode {mode}; {advice}"


def _class_problems(config: Config) -> Iterable[str]:
    classes, part = config.model.num_classes, config.dataset.classes
    if part is not None and classes not in ("auto", part):
        yield f"model.num_classes: {classes} does not fit dataset.classes {part}; set both to one value"


def _optimizer_problems(optimizer: Optimizer) -> Iterable[str]:
    if optimizer.name not in OPTIMIZERS and not is_path(optimizer.name):
        yield (
            f"train.optimizer.name: {optimizer.name!r} is not allowed{nearest(optimizer.name, OPTIMIZERS)}; allowed: "
            f"{', '.join(OPTIMIZERS)}, or the path of a class, such as torch.optim.NAdam, or mine:Optimizer of your "
            "project"
        )


def _split_problems(split: Split) -> Iterable[str]:
    """Splits of which an image would be in two parts."""
    where = "dataset.split"
    if split.pool is not None and split.valid == split.train:
        yield (
            f"{where}.valid: {split.valid!r} is also {where}.train: val and test would be images that were trained on; "
            f"name a split of other images, or set {where}.valid=null to train on those that val and test leave"
        )
    named = {name: part for name, part in (("val", split.val), ("test", split.test)) if isinstance(part, str)}
    for name, part in named.items():
        other = "test" if name == "val" else "val"
        if part == split.train:
            yield (
                f"{where}.{name}: {part!r} is also {where}.train, which is trained on; name another split, or give a "
                f"number or a share of images and {where}.valid=null to take them out of {part!r}"
            )
        elif part == split.pool:
            yield (
                f"{where}.{name}: {part!r} would be {name} as a whole, and {where}.{other}={getattr(split, other)} is "
                f"drawn from it; name another split, or set {where}.valid=null to draw {other} from {split.train!r}"
            )
    if len(named) == 2 and split.val == split.test:
        yield f"{where}.test: {split.test!r} is also {where}.val; name another split, or set {where}.test=0"


def _axis_problems(axis: str, path: str, values: Any) -> Iterable[str]:
    if axis not in AXES and not _is_searchable(path):
        what = f"unknown axis{nearest(axis, [*AXES, 'epochs', 'tag'])}"
        yield f"hparams.{axis}: {what}; one of {', '.join(AXES)}, or a key path such as train.scheduler.gamma"
    elif not isinstance(values, tuple) or not values:
        yield f"hparams.{axis}: {as_lists(values)!r} is not a list of values to try; write [{as_lists(values)}]"
    elif len({json.dumps(as_lists(value)) for value in values}) != len(values):
        yield f"hparams.{axis}: {as_lists(values)!r} contains a value twice; keep each once"


def _variant_problems(config: Config) -> Iterable[str]:
    """The problems of `compare.variants` that can be seen without making their configurations."""
    for name, variant in config.compare.variants.items():
        where = f"compare.variants.{name}"
        if name == BASE:
            yield f"{where}: {BASE!r} is the name of the training that the variants differ from; give another one"
        paths = [key_path(config, path) for path in variant.set]
        for path in variant.set:
            if path not in AXES and not _is_searchable(key_path(config, path)):
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
    if names[-2] == "options" and ".".join(names[:-1]) in _OPTIONS:
        # What a network or an optimizer declares is known where runs are planned.
        return True
    for name in names:
        fields = getattr(schema, "model_fields", {})
        if name not in fields:
            return False
        schema = section_of(fields[name].annotation)
    return True


# What tables of images have besides TABLE_COLUMNS.
_COLUMNS = ("epochs", "epoch", "steps", "split", "n", "images_per_s", "train_s")


def axis_name(path: str) -> str:
    """The short name of a key path, or the path itself if it has none."""
    option = path.removeprefix("model.options.")
    return _SHORT_NAMES.get(path, path if option in (*AXES, *TABLE_COLUMNS, *_COLUMNS) else option)
